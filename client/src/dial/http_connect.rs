//! CONNECT of HTTP/1.1, on a connection to the proxy.

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::proxy_failure::Why;
use crate::text::{io_reason, quoted};

/// The most bytes of a response's head. Proxies send a few hundred.
const LONGEST_HEAD: usize = 16 * 1024;
/// The most fields of a response's head.
const MOST_FIELDS: usize = 64;

/// Asks the proxy for a connection. Once it answers with success, the stream leads there.
pub(super) async fn ask<S>(stream: &mut S, authority: &str, login: Option<HeaderValue>) -> Result<(), Why>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: std::io::Error| Why::Broken(io_reason(&error));
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    request.extend_from_slice(concat!("User-Agent: cok-client/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes());
    let has_login = login.is_some();
    if let Some(login) = login {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(Why::Broken("it closed the connection without an answer".to_owned()));
        }
        // A proxy may say first that it works on it. Its timeout ends a flood of such answers.
        while let Some(length) = interim(&head) {
            head.drain(..length);
        }
        match answer(&head, has_login)? {
            // The daemon waits for this side, so bytes behind the head are the proxy's own.
            Some(length) if head.len() > length => {
                return Err(Why::NotAProxy("it sends more than an answer".to_owned()));
            }
            Some(_) => return Ok(()),
            None if head.len() >= LONGEST_HEAD => {
                return Err(Why::NotAProxy(format!("the head of its answer is longer than {LONGEST_HEAD} bytes")));
            }
            None => {}
        }
    }
}

/// The length of a whole head of an interim response (RFC 9110, section 15.2), if there is one.
fn interim(head: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(length)) => {
            response.code.is_some_and(|code| (100..200).contains(&code) && code != 101).then_some(length)
        }
        _ => None,
    }
}

/// The length of a whole head with success; `None` if some of it is missing.
fn answer(head: &[u8], has_login: bool) -> Result<Option<usize>, Why> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(head) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(length)) => length,
        Err(error) => return Err(Why::NotAProxy(format!("its answer is not HTTP: {error}"))),
    };
    let code = response.code.unwrap_or(0);
    if (200..300).contains(&code) {
        return Ok(Some(length));
    }
    let reason = response.reason.unwrap_or_default();
    let status = quoted(format!("{code} {reason}").trim_end());
    let values = |name: &'static str| {
        let named = response.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    // RFC 9209, and squid's own field.
    let details = values("proxy-status").chain(values("x-squid-error")).collect::<Vec<_>>().join(" ");
    let details = details.to_ascii_lowercase();
    Err(match code {
        407 => login_failed(&values("proxy-authenticate").collect::<Vec<_>>(), has_login),
        _ if details.contains("dns_error") || details.contains("dns_timeout") || details.contains("err_dns_fail") => {
            Why::Unresolved
        }
        403 | 451 => Why::Forbidden(status),
        500..600 if details.contains("err_cannot_forward") => {
            Why::NoWay(format!("{status}, as squid says of a name that it cannot resolve"))
        }
        500..600 => Why::NoWay(status),
        _ => Why::Answer(status),
    })
}

fn login_failed(offers: &[String], has_login: bool) -> Why {
    let schemes: Vec<&str> = offers.iter().flat_map(|offer| schemes(offer)).collect();
    match has_login {
        _ if !schemes.is_empty() && !schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) => {
            Why::OtherLogin(quoted(&schemes.join(", ")))
        }
        true => Why::WrongLogin,
        false => Why::NoLogin,
    }
}

/// The schemes of a field, which may have several challenges with parameters of their own (RFC 9110, section 11.6.1).
fn schemes(field: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let elements = field.split(move |c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ',' && !is_quoted
    });
    elements.filter_map(|element| {
        let (word, rest) = element.trim().split_once(char::is_whitespace).unwrap_or((element.trim(), ""));
        let is_parameter = word.contains('=') || rest.trim_start().starts_with('=');
        (!is_parameter && !word.is_empty()).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes of this answer, which arrives byte by byte.
    async fn ask_for(text: &str, login: Option<&'static str>) -> Result<(), Why> {
        let (mut here, mut there) = duplex(1);
        let text = text.to_owned();
        let proxy = tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                there.read_buf(&mut asked).await.unwrap();
            }
            // The client may hang up early.
            let _hung_up = there.write_all(text.as_bytes()).await;
            asked
        });
        let result = ask(&mut here, "t.example:443", login.map(HeaderValue::from_static)).await;
        drop(here);
        let asked = String::from_utf8(proxy.await.unwrap()).unwrap();
        assert!(asked.starts_with("CONNECT t.example:443 HTTP/1.1\r\nHost: t.example:443\r\n"), "{asked}");
        assert_eq!(asked.contains("\r\nProxy-Authorization: "), login.is_some());
        result
    }

    #[tokio::test]
    async fn each_answer_has_its_reason() {
        let of = |text: &'static str| ask_for(text, None);
        assert_eq!(of("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await, Ok(()));
        assert_eq!(of("HTTP/1.0 200 OK\r\n\r\n").await, Ok(()));
        let basic = "HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: Basic realm=x\r\n\r\n";
        assert_eq!(of(basic).await, Err(Why::NoLogin));
        assert_eq!(ask_for(basic, Some("Basic x")).await, Err(Why::WrongLogin));
        for field in [r#"Negotiate, Basic realm="x""#, r#"Digest realm="a, \"b", nonce = c, BASIC realm=x"#] {
            assert_eq!(
                ask_for(&format!("HTTP/1.1 407 X\r\nProxy-Authenticate: {field}\r\n\r\n"), None).await,
                Err(Why::NoLogin)
            );
        }
        let quoted = "HTTP/1.1 407 X\r\nProxy-Authenticate: Digest realm=\"a, Basic b\", nonce=c\r\n\r\n";
        assert_eq!(of(quoted).await, Err(Why::OtherLogin("Digest".to_owned())));
        let slow = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(of(slow).await, Ok(()));
        assert_eq!(of("HTTP/1.1 101 X\r\n\r\n").await, Err(Why::Answer("101 X".to_owned())));
        let other = "HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n";
        assert_eq!(of(other).await, Err(Why::OtherLogin("NTLM, Negotiate".to_owned())));
        assert_eq!(of("HTTP/1.1 403 Forbidden\r\n\r\n").await, Err(Why::Forbidden("403 Forbidden".to_owned())));
        assert_eq!(of("HTTP/1.1 502 Bad\r\nProxy-Status: p; error=dns_error\r\n\r\n").await, Err(Why::Unresolved));
        assert_eq!(of("HTTP/1.1 503 X\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n").await, Err(Why::Unresolved));
        assert_eq!(of("HTTP/1.1 504 Late\r\n\r\n").await, Err(Why::NoWay("504 Late".to_owned())));
        assert_eq!(of("HTTP/1.1 405 \r\n\r\n").await, Err(Why::Answer("405".to_owned())));
    }

    #[tokio::test]
    async fn a_hostile_proxy_is_refused() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(2 * LONGEST_HEAD));
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(MOST_FIELDS + 1));
        for text in [endless.as_str(), &fields, "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\nX\0: a\n\n"] {
            assert!(matches!(ask_for(text, None).await, Err(Why::NotAProxy(_))), "{text:.40}");
        }
        for text in ["", "HTTP/1.1 200 OK\r\n"] {
            assert!(matches!(ask_for(text, None).await, Err(Why::Broken(_))), "{text}");
        }
        let (mut here, mut there) = duplex(1024);
        there.write_all(b"HTTP/1.1 200 OK\r\n\r\nearly").await.unwrap();
        assert!(matches!(ask(&mut here, "t.example:443", None).await, Err(Why::NotAProxy(_))));
    }
}
