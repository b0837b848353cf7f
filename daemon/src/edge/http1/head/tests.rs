//! The table of heads, and where they end.

use super::*;

fn judged(head: &[u8]) -> Result<Head, Fault> {
    assert_eq!(find_end(head, 0), Ok(End::At(head.len())), "{}", head.escape_ascii());
    judge(head)
}

/// A GET with these fields.
fn fields(fields: &[u8]) -> Result<Head, Fault> {
    judged(&[b"GET / HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n"].concat())
}

/// A request line of its own.
fn line(line: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, Fault> {
    let head = judged(&[line, b"\r\nHost: a.test\r\n\r\n"].concat())?;
    Ok(head.replaced.map(|replaced| (replaced.stand_in, replaced.target)))
}

#[test]
fn framing_is_what_one_field_says() {
    let framing = |text: &[u8]| fields(text).map(|head| head.framing);
    for (text, length) in [
        (&b""[..], 0),
        (b"Content-Length: 0\r\n", 0),
        (b"content-length:5\r\n", 5),
        (b"CONTENT-LENGTH: \t 0005 \r\n", 5),
    ] {
        assert_eq!(framing(text), Ok(Framing::Length(length)), "{}", text.escape_ascii());
    }
    for coding in ["chunked", "Chunked", " CHUNKED\t"] {
        let text = format!("Transfer-Encoding:{coding}\r\n");
        assert_eq!(framing(text.as_bytes()), Ok(Framing::Chunked), "{coding}");
    }
    for text in ["", "x", "+5", "-5", "5,5", "5, 5", "0x5", "5 5", "5;", "\"5\"", "99999999999999999999", "5.0"] {
        let text = format!("Content-Length: {text}\r\n");
        assert_eq!(framing(text.as_bytes()), Err(Fault::Length), "{text}");
    }
    for (other, fault) in [("5", Fault::Length), ("6", Fault::Length)] {
        let text = format!("Content-Length: 5\r\ncontent-length: {other}\r\n");
        assert_eq!(framing(text.as_bytes()), Err(fault), "{text}");
    }
    for coding in [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "\"chunked\"",
        "xchunked",
        "chunked;x",
        "chunked\x0b",
    ] {
        let text = format!("Transfer-Encoding: {coding}\r\n");
        let fault = if coding.contains('\x0b') { Fault::FieldValue } else { Fault::Coding };
        assert_eq!(framing(text.as_bytes()), Err(fault), "{text}");
    }
    let twice = b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(framing(twice), Err(Fault::Coding));
    for both in [
        &b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"[..],
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(framing(both), Err(Fault::LengthAndCoding));
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(judged(old), Err(Fault::Coding));
}

#[test]
fn fields_are_names_and_values() {
    for text in [
        &b"x:\r\n"[..],
        b"x: a b\tc\r\n",
        b"x-odd: \x80\xff\r\n",
        b"!#$%&'*+-.^_`|~: 1\r\n",
        b"x: a:b\r\n",
        b"transfer-encoding_: chunked\r\n",
    ] {
        assert!(fields(text).is_ok(), "{}", text.escape_ascii());
    }
    for (text, fault) in [
        (&b"x\r\n"[..], Fault::FieldName),
        (b": 1\r\n", Fault::FieldName),
        (b"x(y: 1\r\n", Fault::FieldName),
        (b"x\0: 1\r\n", Fault::FieldName),
        (b"\x80: 1\r\n", Fault::FieldName),
        (b"\r: 1\r\n", Fault::FieldName),
        (b"x : 1\r\n", Fault::SpaceBeforeColon),
        (b"Content-Length\t: 5\r\n", Fault::SpaceBeforeColon),
        (b"x y: 1\r\n", Fault::SpaceBeforeColon),
        (b" x: 1\r\n", Fault::Folding),
        (b"x: 1\r\n\tfolded\r\n", Fault::Folding),
        (b"x: \0\r\n", Fault::FieldValue),
        (b"x: a\rb\r\n", Fault::FieldValue),
        (b"x: \x7f\r\n", Fault::FieldValue),
        (b"x: \x0bchunked\r\n", Fault::FieldValue),
    ] {
        assert_eq!(fields(text), Err(fault), "{}", text.escape_ascii());
    }
    assert!(fields(&b"x: 1\r\n".repeat(MAX_FIELDS - 1)).is_ok());
    assert_eq!(fields(&b"x: 1\r\n".repeat(MAX_FIELDS)), Err(Fault::TooLarge));
}

#[test]
fn a_request_line_has_three_parts() {
    for good in
        ["GET / HTTP/1.1", "GET / HTTP/1.0", "get /a%20b?c=d&e HTTP/1.1", "M-SEARCH //x HTTP/1.1", "OPTIONS * HTTP/1.1"]
    {
        assert_eq!(line(good.as_bytes()), Ok(None), "{good}");
    }
    for (bad, fault) in [
        ("GET", Fault::RequestLine),
        ("GET /", Fault::RequestLine),
        ("GET  / HTTP/1.1", Fault::RequestLine),
        ("GET /  HTTP/1.1", Fault::RequestLine),
        (" GET / HTTP/1.1", Fault::RequestLine),
        ("GET\t/ HTTP/1.1", Fault::RequestLine),
        ("GET /\tx HTTP/1.1", Fault::RequestLine),
        ("GET /\x7f HTTP/1.1", Fault::RequestLine),
        ("G(T / HTTP/1.1", Fault::RequestLine),
        ("GET / HTTP/1.1 ", Fault::Version),
        ("GET / x HTTP/1.1", Fault::RequestLine),
        ("GET / http/1.1", Fault::RequestLine),
        ("GET / HTTP/1.2", Fault::Version),
        ("GET / HTTP/2.0", Fault::Version),
        ("GET / HTTP/11", Fault::Version),
        ("PRI * HTTP/2.0", Fault::Version),
        ("GET * HTTP/1.1", Fault::Target),
        ("OPTIONS ** HTTP/1.1", Fault::Target),
        ("GET ?q HTTP/1.1", Fault::Target),
        ("GET a.test HTTP/1.1", Fault::Target),
        ("GET a.test:443 HTTP/1.1", Fault::Target),
        ("GET https:/x HTTP/1.1", Fault::Target),
        ("GET https:///x HTTP/1.1", Fault::Authority),
        ("GET https://a b/ HTTP/1.1", Fault::RequestLine),
        ("GET http://a.test/ HTTP/1.1", Fault::Scheme),
        ("GET ftp://a.test/ HTTP/1.1", Fault::Scheme),
        ("GET /x#y HTTP/1.1", Fault::Fragment),
        ("GET https://a.test/#y HTTP/1.1", Fault::Fragment),
        ("GET # HTTP/1.1", Fault::Fragment),
        ("CONNECT a.test:443 HTTP/1.1", Fault::Connect),
        ("CONNECT / HTTP/1.1", Fault::Connect),
    ] {
        assert_eq!(line(bad.as_bytes()), Err(fault), "{bad}");
    }
}

#[test]
fn unusual_targets_go_around_the_library() {
    for (target, stand_in, expected) in [
        (&b"/q?a=\"b\"{c}|<d>^`\\"[..], "/", &b"/q?a=\"b\"{c}|<d>^`\\"[..]),
        (b"/\xfc\xff", "/", b"/\xfc\xff"),
        ("/ü".as_bytes(), "/", "/ü".as_bytes()),
        (b"https://a.test/x?y", "https://a.test/", b"/x?y"),
        (b"HTTPS://A.test:8443/\xfc", "https://A.test:8443/", b"/\xfc"),
        (b"https://a.test", "https://a.test/", b"/"),
        (b"https://a.test?q", "https://a.test/", b"/?q"),
    ] {
        let seen = line(&[b"GET ", target, b" HTTP/1.1"].concat());
        assert_eq!(seen, Ok(Some((stand_in.into(), Bytes::copy_from_slice(expected)))), "{}", target.escape_ascii());
    }
    let asterisk = line(b"OPTIONS https://a.test HTTP/1.1").unwrap().unwrap();
    assert_eq!(asterisk.1, "*");
}

#[test]
fn only_http11_asks_for_an_upgrade() {
    assert!(fields(b"Upgrade: x\r\n").unwrap().upgrade);
    assert!(!judged(b"GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n").unwrap().upgrade);
}

#[test]
fn a_head_ends_with_an_empty_line() {
    let head = b"GET / HTTP/1.1\r\nx: 1\r\n\r\n";
    for cut in 0..head.len() {
        let End::Beyond(searched) = find_end(&head[..cut], 0).unwrap() else { panic!("{cut}") };
        assert_eq!(find_end(head, searched), Ok(End::At(head.len())), "{cut}");
    }
    for bare in [&b"GET / HTTP/1.1\n"[..], b"GET / HTTP/1.1\r\nx: 1\n", b"GET / HTTP/1.1\r\n\n", b"\n"] {
        assert_eq!(find_end(bare, 0), Err(Fault::BareLineFeed), "{}", bare.escape_ascii());
    }
}

#[test]
fn the_head_in_place_of_a_faulty_one_keeps_what_the_page_depends_on() {
    let faulty = b"HEAD / HTTP/9\r\nbad\r\nAccept: text/html\r\nx : y";
    let seen = stand_in(faulty);
    assert_eq!(seen, "HEAD / HTTP/1.1\r\nhost: invalid\r\nconnection: close\r\naccept: text/html\r\n\r\n");
    assert!(judge(&seen).is_ok());
    assert_eq!(stand_in(b"\0\r\naccept: \x01\r\n"), "GET / HTTP/1.1\r\nhost: invalid\r\nconnection: close\r\n\r\n");
}
