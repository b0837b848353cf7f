use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use proptest::prelude::*;

use super::super::Half;
use super::*;

/// What a server got: request line, fields with their names in lower case, body.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    line: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// Has a shell run the line of a request, and returns what the server got.
fn sent(method: &str, target: &[u8], fields: &[(&str, &[u8])], body: &[u8]) -> Got {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut line = || {
            let mut line = Vec::new();
            stream.read_until(b'\n', &mut line).unwrap();
            line.truncate(line.len() - 2);
            line
        };
        let first = line();
        let mut fields = Vec::new();
        loop {
            let line = line();
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
            fields.push((
                String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(),
                line[colon + 1..].trim_ascii().to_vec(),
            ));
        }
        let length = fields.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, length)| str::from_utf8(length).unwrap().parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        Got { line: first, fields, body }
    });
    let line = line_of(&origin, method, target, fields, body, Secrets::Revealed).unwrap();
    // An argument of the shell has a limit that a line has not.
    let mut shell = Command::new("sh");
    shell.env_remove("http_proxy").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut got = server.join().unwrap();
    let host = origin.strip_prefix("http://").unwrap().as_bytes().to_vec();
    got.fields.retain(|(name, value)| !(name == "host" && *value == host));
    got
}

fn line_of(
    origin: &str,
    method: &str,
    target: &[u8],
    fields: &[(&str, &[u8])],
    body: &[u8],
    secrets: Secrets,
) -> Result<String, NoCurl> {
    let fields = fields.iter().map(|(name, value)| Field { name, value }).collect();
    let content = Half { fields, body, size: body.len() as u64, is_whole: true, ..Half::default() };
    curl(&Request { method, origin, target, content }, secrets)
}

fn fields(pairs: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

#[test]
fn a_plain_request_has_a_plain_line() {
    let get = |target: &str, secrets| {
        let all: [(&str, &[u8]); 6] = [
            ("host", b"a.example"),
            ("user-agent", b"curl/8"),
            ("accept", b"*/*"),
            ("accept-encoding", b"gzip"),
            ("authorization", b"Bearer x"),
            ("x-forwarded-for", b"1.2.3.4"),
        ];
        line_of("https://a.example", "GET", target.as_bytes(), &all, b"", secrets).unwrap()
    };
    assert_eq!(
        get("/x", Secrets::Revealed),
        "curl https://a.example/x -H 'user-agent: curl/8' -H 'accept: */*' -H 'accept-encoding: gzip' \
         -H 'authorization: Bearer x' --compressed"
    );
    let masked = get("/x?token=1", Secrets::Masked);
    assert!(
        masked.starts_with("curl 'https://a.example/x?token=•••' ") && masked.contains("'authorization: Bearer •••'")
    );
}

#[test]
fn the_server_gets_what_was_captured() {
    let all: [(&str, &[u8]); 8] = [
        ("accept", b"a/b"),
        ("x-twice", b"one"),
        ("x-twice", b"two"),
        ("x-empty", b""),
        ("x-quotes", b"'\"$(touch /tmp/x)`id`\\ !"),
        ("x-bytes", b"-caf\xe9 %d \x01"),
        ("x-utf8", "naïve •\u{202e}".as_bytes()),
        ("content-type", b"text/x"),
    ];
    let body = "it's\n\"a\" $HOME `id` \\n %s body\n\n".as_bytes();
    let got = sent("POST", b"/a/./b/../c//d?x=[1-3]&y={a,b}&z=%00'", &all, body);
    assert_eq!(got.line, b"POST /a/./b/../c//d?x=[1-3]&y={a,b}&z=%00' HTTP/1.1");
    assert_eq!(got.body, body);
    let mut expected = fields(&all);
    expected.push(("content-length".into(), body.len().to_string().into_bytes()));
    let mut fields = got.fields;
    fields.sort();
    expected.sort();
    assert_eq!(fields, expected);
}

#[test]
fn methods_and_targets_are_kept() {
    let get = sent("GET", b"/../a/..", &[], b"");
    assert_eq!((get.line.as_slice(), get.fields), (&b"GET /../a/.. HTTP/1.1"[..], vec![]));
    assert_eq!(sent("HEAD", b"/", &[], b"").line, b"HEAD / HTTP/1.1");
    assert_eq!(sent("OPTIONS", b"*", &[], b"").line, b"OPTIONS * HTTP/1.1");
    assert_eq!(sent("DELETE", b"/caf\xc3\xa9?\xff|^\"", &[], b"").line, b"DELETE /caf\xc3\xa9?\xff|^\" HTTP/1.1");
    assert_eq!(sent("X-'M!", b"/", &[], b"").line, b"X-'M! / HTTP/1.1");
    let put = sent("PUT", b"/", &[("content-length", b"0")], b"");
    assert_eq!((put.line.as_slice(), put.fields), (&b"PUT / HTTP/1.1"[..], fields(&[("content-length", b"0")])));
    assert_eq!(sent("GET", b"/", &[], b"body").body, b"body");
}

#[test]
fn bodies_are_kept_whatever_their_bytes() {
    let every: Vec<u8> = (0..=255).collect();
    assert_eq!(sent("POST", b"/", &[], &every).body, every);
    assert_eq!(sent("POST", b"/", &[], b"@/etc/passwd").body, b"@/etc/passwd");
    assert_eq!(sent("POST", b"/", &[], b"\n\n").body, b"\n\n");
    let long = b"0123456789'".repeat(150_000);
    assert_eq!(sent("POST", b"/", &[], &long).body, long);
    assert!(!sent("POST", b"/", &[], &long).fields.iter().any(|(name, _)| name == "expect"));
}

#[test]
fn some_requests_have_no_line() {
    let line = |fields: &[(&str, &[u8])], body: &[u8]| line_of("http://a", "GET", b"/", fields, body, Secrets::Masked);
    assert_eq!(line(&[("upgrade", b"websocket")], b""), Err(NoCurl::Upgrade));
    assert_eq!(line(&[], &vec![0; 5 << 20]), Err(NoCurl::TooLong));
    let content = Half::default();
    let request = Request { method: "GET", origin: "http://a", target: b"/", content };
    assert_eq!(curl(&request, Secrets::Masked), Err(NoCurl::NotWhole));
}

#[test]
fn forms_hide_their_secrets() {
    let form: [(&str, &[u8]); 1] = [("content-type", b"application/x-www-form-urlencoded")];
    let line = line_of("http://a", "POST", b"/", &form, b"user=me&password=x", Secrets::Masked).unwrap();
    assert!(line.ends_with("--data-binary 'user=me&password=•••'"), "{line}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A shell reads back any bytes, but for line breaks at the end of what is not text.
    #[test]
    fn a_shell_reads_quoted_bytes(bytes in prop::collection::vec(1..=255_u8, 0..40), text in "\\PC{0,20}") {
        let is_text = str::from_utf8(&bytes).is_ok_and(|text| text.chars().all(is_plain));
        prop_assume!(is_text || !bytes.ends_with(b"\n"));
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(bytes))).output().unwrap();
            prop_assert_eq!(output.stdout, bytes);
        }
    }
}
