use super::*;

/// A field line with a literal name, `001N` and a length with three bits; plain, or as given in the Huffman code.
fn literal(name: &[u8], huffman: bool, value: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    let flags = if huffman { 0b0010_1000 } else { 0b0010_0000 };
    match name.len() {
        length @ 0..7 => line.push(flags | length as u8),
        length => line.extend([flags | 7, (length - 7) as u8]),
    }
    line.extend(name);
    line.push(value.len() as u8);
    line.extend(value);
    line
}

fn section(lines: &[&[u8]]) -> Vec<u8> {
    [&[0, 0][..], &lines.concat()].concat()
}

const GET: &[u8] = b"\xd1";
const HTTPS: &[u8] = b"\xd7";
const ROOT: &[u8] = b"\xc1";
/// A literal with a name from the static table: `:authority`, then `:path`.
const AUTHORITY: &[u8] = b"\x50\x01a";
const PATH: &[u8] = b"\x51\x02/a";
/// `accept: */*`, and a name that is not in the table.
const ACCEPT: &[u8] = b"\xdd";

fn head(lines: &[&[u8]]) -> Result<(), Violation> {
    check_section(&section(lines), Section::Head)
}

fn malformed(lines: &[&[u8]]) -> &'static str {
    let violation = head(lines).unwrap_err();
    assert_eq!((violation.scope, violation.code), (super::super::violation::Scope::Stream, Code::H3_MESSAGE_ERROR));
    violation.reason
}

#[test]
fn ordinary_heads_pass_in_each_representation() {
    let custom = literal(b"x-private", false, b"1");
    head(&[GET, HTTPS, AUTHORITY, ROOT, ACCEPT, &custom]).unwrap();
    head(&[PATH, AUTHORITY, HTTPS, GET]).unwrap();
    let plain = PSEUDO.map(|(_, plain, _)| literal(plain, false, b"x"));
    head(&plain.each_ref().map(Vec::as_slice)).unwrap();
    let encoded = PSEUDO.map(|(_, _, encoded)| literal(encoded, true, b"x"));
    head(&encoded.each_ref().map(Vec::as_slice)).unwrap();
    // An empty value is only wrong for pseudo-header fields.
    head(&[GET, &literal(b"x", false, b"")]).unwrap();
    check_section(&section(&[ACCEPT]), Section::Trailers).unwrap();
    check_section(&section(&[]), Section::Trailers).unwrap();
}

#[test]
fn a_pseudo_header_field_comes_once_in_whatever_representation() {
    for (index, (_, plain, encoded)) in PSEUDO.into_iter().enumerate() {
        let known = [GET, HTTPS, AUTHORITY, ROOT][index];
        let variants = [known.to_vec(), literal(plain, false, b"x"), literal(encoded, true, b"x")];
        for first in &variants {
            for second in &variants {
                assert_eq!(malformed(&[first, second]), "a pseudo-header field twice");
            }
        }
    }
    // Two methods that differ: the index names a whole field.
    assert_eq!(malformed(&[GET, b"\xd4"]), "a pseudo-header field twice");
}

#[test]
fn pseudo_header_fields_come_first_and_not_in_trailers() {
    for (index, (_, plain, encoded)) in PSEUDO.into_iter().enumerate() {
        let known = [GET, HTTPS, AUTHORITY, ROOT][index];
        for late in [known.to_vec(), literal(plain, false, b"x"), literal(encoded, true, b"x")] {
            assert_eq!(malformed(&[ACCEPT, &late]), "a pseudo-header field behind others");
            let violation = check_section(&section(&[&late]), Section::Trailers).unwrap_err();
            assert_eq!(violation.reason, "a pseudo-header field in trailers");
        }
    }
}

#[test]
fn other_pseudo_header_fields_are_malformed() {
    // `:status`: indexed, with its name from the table, literal, and in the Huffman code; then `:protocol`, and others.
    let others = [
        b"\xd9".to_vec(),
        b"\x5f\x09\x03200".to_vec(),
        literal(b":status", false, b"200"),
        literal(b"\xb8\x84\x8d\x36\xa3", true, b"200"),
        literal(b":protocol", false, b"websocket"),
        literal(b"\xb9\x5d\x87\x49\xc8\x7a\x3f", true, b"websocket"),
        literal(b":", false, b"x"),
        literal(b":method ", false, b"x"),
        literal(b":METHOD", false, b"x"),
        // `:path` with padding that the code does not allow.
        literal(b"\xb9\x58\xd3\x3f\xff", true, b"/"),
    ];
    for other in others {
        assert_eq!(malformed(&[&other]), "a pseudo-header field that no request has", "{other:?}");
    }
}

#[test]
fn empty_pseudo_header_fields_are_malformed() {
    for empty in
        [&b"\xc0"[..], b"\x51\x00", b"\x50\x80", b"\x51\x81\xff", b"\x51\x82\xff\xff", &literal(b":scheme", false, b"")]
    {
        assert_eq!(malformed(&[empty]), "an empty pseudo-header field");
    }
}

#[test]
fn what_cannot_be_decoded_ends_the_connection() {
    let wrong: [&[u8]; 18] = [
        b"",
        b"\x00",
        // A Required Insert Count, and a negative base.
        b"\x02\x00\xd1",
        b"\xff\x00\x00",
        b"\x00\x80",
        // Dynamic: indexed, by post-base index, names likewise.
        b"\0\0\x80",
        b"\0\0\x10",
        b"\0\0\x40\x01a",
        b"\0\0\x00\x01a",
        // Static, behind the table.
        b"\0\0\xff\x24",
        b"\0\0\x5f\x54\x01a",
        // Cut short: an index, a name, a value, a length.
        b"\0\0\xff",
        b"\0\0\x23ab",
        b"\0\0\x21a",
        b"\0\0\x21a\x02a",
        b"\0\0\x50\x7f",
        // Lengths that no memory holds.
        b"\0\0\x50\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\0\0\x50\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ];
    for section in wrong {
        let violation = check_section(section, Section::Head).unwrap_err();
        assert_eq!(violation.code, Code::QPACK_DECOMPRESSION_FAILED, "{section:?}");
        assert_eq!(violation.scope, super::super::violation::Scope::Connection);
    }
}

fn request(method: Method, uri: &str, fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[test]
fn fields_of_a_connection_are_malformed() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("content-length", "-1"),
        ("content-length", "+1"),
        ("content-length", "1, 1"),
        ("content-length", ""),
        ("content-length", "18446744073709551616"),
    ] {
        let request = request(Method::GET, "https://a/", &[(name, value)]);
        assert_eq!(check_head(&request).unwrap_err().code, Code::H3_MESSAGE_ERROR, "{name}: {value}");
    }
    let differing = request(Method::GET, "https://a/", &[("content-length", "1"), ("content-length", "2")]);
    assert_eq!(check_head(&differing).unwrap_err().reason, "content-lengths that differ");
    let fine = [("te", "Trailers"), ("content-length", "7"), ("content-length", "07")];
    assert_eq!(check_head(&request(Method::GET, "https://a/", &fine)), Ok(Some(7)));
    assert_eq!(check_head(&request(Method::GET, "https://a/", &[])), Ok(None));
}

#[test]
fn targets() {
    for (method, uri, fine) in [
        (Method::GET, "https://a/b?c", true),
        (Method::OPTIONS, "https://a/", true),
        (Method::GET, "a", false),
        (Method::GET, "/b", false),
        (Method::CONNECT, "a:443", true),
        (Method::CONNECT, "https://a/", false),
    ] {
        assert_eq!(check_head(&request(method, uri, &[])).is_ok(), fine, "{uri}");
    }
}
