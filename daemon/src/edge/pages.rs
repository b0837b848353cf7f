//! What visitors see when there is nothing to pass on: what is wrong and whose turn it is, and nothing else.

use cok_proto::RequestHead;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::Body;
use crate::own_answers::{STYLE, mark};

/// How soon a visitor may try again while a tunnel is away, in seconds.
const RETRY_SECONDS: u64 = 10;

/// A page loads again after so many seconds at least. Before the end of a short wait, its other requests would count as well.
const RELOAD_SECONDS: u64 = 5;

/// Why a request is answered by the daemon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The request breaks a rule of HTTP that the parser let through.
    BadRequest,
    /// No such tunnel.
    UnknownName,
    /// The tunnel is not open to the visitor's address.
    NetworkDenied,
    /// The tunnel is not open at this path.
    PathDenied,
    /// The tunnel is open with a password, and perhaps with a share link.
    PasswordNeeded,
    /// The tunnel is open with a share link.
    LinkNeeded,
    /// The visitor's share link has expired.
    LinkExpired,
    /// Nothing on the base domain at this path.
    NoPage,
    /// The method is not for this server.
    MethodNotAllowed,
    /// The authority is none of ours.
    Misdirected,
    /// The request has been in the tunnel before.
    Loop,
    /// The head is too long for the tunnel.
    HeadTooLarge,
    /// The client has been away for too long.
    Offline,
    /// Too many requests of this visitor in a time.
    TooMany,
    /// Too many requests to this tunnel in a time, or to those of its key.
    TooManyToTunnel,
    /// Too many visitors or exchanges at once.
    Busy,
    /// Too many exchanges of this visitor at once.
    Share,
    /// The visitor has not sent its request's body in time.
    UploadSlow,
    /// The visitor broke its request's body off. Mostly it has left.
    UploadBroken,
    /// The daemon is going away.
    ShuttingDown,
    /// The local service refused the connection.
    ServiceAbsent,
    /// The local service, or the way to it, broke off.
    ServiceBroke,
    /// The local service did not answer in time.
    ServiceSlow,
    /// The local service's name does not resolve.
    ServiceUnresolved,
    /// The client does not trust the local service's certificate.
    ServiceUntrusted,
    /// The client and the local service speak different protocols.
    ServiceMismatch,
    /// The local service's response is not valid HTTP.
    ServiceInvalid,
    /// The head of the local service's response is longer than a tunnel carries.
    ResponseTooLarge,
}

/// The party that has to do something about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The visitor's.
    Visitor,
    /// The owner's, who runs the client.
    Owner,
    /// The operator's, who runs the daemon.
    Operator,
}

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Owner => "owner",
            Self::Operator => "operator",
        }
    }
}

impl Problem {
    /// The status that says so.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::UploadBroken => StatusCode::BAD_REQUEST,
            Self::UnknownName | Self::NoPage | Self::PathDenied => StatusCode::NOT_FOUND,
            Self::PasswordNeeded => StatusCode::UNAUTHORIZED,
            // A 401 would have to name a way to authenticate that programs know (RFC 9110, section 15.5.2).
            Self::NetworkDenied | Self::LinkNeeded | Self::LinkExpired => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooMany | Self::TooManyToTunnel => StatusCode::TOO_MANY_REQUESTS,
            Self::UploadSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Offline | Self::Busy | Self::Share | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServiceAbsent
            | Self::ServiceBroke
            | Self::ServiceUnresolved
            | Self::ServiceUntrusted
            | Self::ServiceMismatch
            | Self::ServiceInvalid
            | Self::ResponseTooLarge => StatusCode::BAD_GATEWAY,
            Self::ServiceSlow => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn turn(self) -> Turn {
        match self {
            Self::BadRequest
            | Self::UnknownName
            | Self::PasswordNeeded
            | Self::LinkNeeded
            | Self::LinkExpired
            | Self::NoPage
            | Self::MethodNotAllowed
            | Self::HeadTooLarge
            | Self::TooMany
            | Self::Share
            | Self::UploadSlow
            | Self::UploadBroken => Turn::Visitor,
            Self::NetworkDenied
            | Self::TooManyToTunnel
            | Self::Busy
            | Self::PathDenied
            | Self::Loop
            | Self::Offline
            | Self::ServiceAbsent
            | Self::ServiceBroke
            | Self::ServiceSlow
            | Self::ServiceUnresolved
            | Self::ServiceUntrusted
            | Self::ServiceMismatch
            | Self::ServiceInvalid
            | Self::ResponseTooLarge => Turn::Owner,
            Self::Misdirected | Self::ShuttingDown => Turn::Operator,
        }
    }

    /// Who can do something about it.
    fn sentence(self) -> &'static str {
        match self.turn() {
            Turn::Visitor if matches!(self, Self::TooMany | Self::Share | Self::UploadSlow | Self::UploadBroken) => {
                "You can try again."
            }
            Turn::Visitor => "You can put that right.",
            Turn::Owner => "Only the tunnel's owner can change that.",
            Turn::Operator => "Only the server's operator can change that.",
        }
    }

    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("Bad request", "Your browser or program sent a request that is not valid HTTP."),
            Self::UnknownName => {
                ("No such tunnel", "Nobody serves this name. Check the address, or ask its owner to start the tunnel.")
            }
            Self::NetworkDenied => (
                "Not open to your network",
                "This tunnel is not open to the address that you come from. Its owner can change that.",
            ),
            Self::PathDenied => ("Nothing here", "This tunnel is not open at this address. Its owner can change that."),
            Self::PasswordNeeded => {
                ("Password needed", "This tunnel opens with a user name and a password. Its owner knows them.")
            }
            Self::LinkNeeded => {
                ("Link needed", "This tunnel opens only with a share link, and not all of it. Ask its owner for one.")
            }
            Self::LinkExpired => {
                ("Link expired", "Your share link has expired. Ask the owner of the tunnel for a new one.")
            }
            Self::NoPage => ("Nothing here", "This server carries tunnels; there is no page at this address."),
            Self::MethodNotAllowed => ("Method not allowed", "This server does not take requests of this method."),
            Self::Misdirected => ("Misdirected request", "This server does not serve the name that was asked for."),
            Self::Loop => (
                "Loop detected",
                "The service behind this tunnel sends its requests to the tunnel itself. Its owner has to change that.",
            ),
            Self::HeadTooLarge => {
                ("Request head too large", "The address and header fields are too long. Clearing cookies may help.")
            }
            Self::Offline => (
                "Tunnel offline",
                "The tunnel of this name is not connected right now. Its owner has to start it again.",
            ),
            Self::TooMany => {
                ("Too many requests", "More requests came from your network than are allowed. Try again in a moment.")
            }
            Self::TooManyToTunnel => {
                ("Too many requests", "More requests came to this tunnel than are allowed. Try again in a moment.")
            }
            Self::Busy => ("Too busy", "This tunnel has as many requests as it can take. Try again in a moment."),
            Self::Share => (
                "Too many requests at once",
                "Your network has as many requests to this tunnel as it may have. Try again once some have ended.",
            ),
            Self::UploadSlow => (
                "Request timeout",
                "The rest of your request did not come in time. Check your connection, and send it again.",
            ),
            Self::UploadBroken => (
                "Incomplete request",
                "Your request ended before its announced end. Check your connection, and send it again.",
            ),
            Self::ShuttingDown => ("Restarting", "The server is restarting. Try again in a moment."),
            Self::ServiceAbsent => (
                "Service not running",
                "The tunnel is connected, but nothing answers behind it. Its owner has to start the service.",
            ),
            Self::ServiceBroke => (
                "Service broke off",
                "The service behind the tunnel ended the connection before it had answered. Its owner can see why.",
            ),
            Self::ServiceSlow => {
                ("Service too slow", "The service behind the tunnel did not answer in time. Its owner can see why.")
            }
            Self::ServiceUnresolved => (
                "Service not found",
                "The tunnel is connected, but the name of the service behind it is unknown. Its owner has to correct it.",
            ),
            Self::ServiceUntrusted => (
                "Service not trusted",
                "The service behind the tunnel shows a certificate that is not trusted there. Its owner can see why.",
            ),
            Self::ServiceMismatch => (
                "Service speaks another protocol",
                "The tunnel was set up for another protocol than its service speaks. Its owner can see which.",
            ),
            Self::ServiceInvalid => (
                "Invalid response",
                "The service behind the tunnel answered with something that is not valid HTTP. Its owner can see what.",
            ),
            Self::ResponseTooLarge => (
                "Response head too large",
                "The header fields of the service's response are too long for the tunnel. Its owner has to shorten them.",
            ),
        }
    }
}

/// Who gets a page, and about which tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    /// The tunnel's public name, as the visitor has written it; `None` if the request is for no tunnel.
    tunnel: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// The sender of a request for the tunnel at this authority, if it is for one.
    pub(super) fn new(method: &'a Method, headers: &'a HeaderMap, tunnel: Option<&'a Authority>) -> Self {
        Self { method, headers, tunnel: tunnel.map(Authority::host) }
    }

    /// The sender of a request into a tunnel.
    pub(super) fn of(head: &'a RequestHead) -> Self {
        Self::new(&head.method, &head.headers, Some(&head.authority))
    }

    /// Its fields.
    pub(super) fn headers(&self) -> &'a HeaderMap {
        self.headers
    }
}

/// The page for a problem, in a form that the visitor accepts.
pub(super) fn page(problem: Problem, reader: Reader<'_>) -> Response<Body> {
    page_until(problem, reader, (problem.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SECONDS))
}

/// The page for a problem that may pass within so many seconds. A browser then loads it again by itself.
pub(super) fn page_until(problem: Problem, reader: Reader<'_>, retry: Option<u64>) -> Response<Body> {
    let status = problem.status();
    let accept = reader.headers.get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    let accepts = |kind: &[u8]| accept.windows(kind.len()).any(|part| part.eq_ignore_ascii_case(kind));
    let (kind, text) = if accepts(b"text/html") {
        ("text/html; charset=utf-8", html(problem, reader, retry))
    } else if accepts(b"json") {
        ("application/json", json(problem, reader))
    } else {
        ("text/plain; charset=utf-8", plain(problem, reader))
    };
    let mut response = Response::new(Body::full(text).because(problem.ending()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    mark(headers);
    if let Some(seconds) = retry {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn html(problem: Problem, reader: Reader<'_>, retry: Option<u64>) -> String {
    let (status, (title, explanation), turn) = (problem.status(), problem.text(), problem.sentence());
    // Browsers load a page again by GET.
    let (refresh, again) = match retry.filter(|_| matches!(*reader.method, Method::GET | Method::HEAD)) {
        Some(seconds) => {
            // Pages that were refused together do not come together again.
            let seconds = seconds.max(RELOAD_SECONDS);
            let seconds = seconds + fastrand::u64(0..=seconds / 4);
            (
                format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
                format!(" This page loads again by itself in {seconds} s."),
            )
        }
        None => (String::new(), String::new()),
    };
    let name = reader.tunnel.map(|name| format!("<p><code>{}</code></p>\n", escaped(name))).unwrap_or_default();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">{refresh}<title>{title}</title>\n\
         <style>{STYLE}</style>\n\
         <h1>{title}</h1>\n{name}<p>{explanation}</p>\n<p><b>{turn}</b>{again}</p>\n\
         <footer>{status}</footer>\n</html>\n",
    )
}

fn json(problem: Problem, reader: Reader<'_>) -> String {
    let (title, explanation) = problem.text();
    let document = serde_json::json!({
        "status": problem.status().as_u16(),
        "error": title,
        "message": explanation,
        "tunnel": reader.tunnel,
        "turn": problem.turn().name(),
    });
    format!("{document}\n")
}

fn plain(problem: Problem, reader: Reader<'_>) -> String {
    let ((title, explanation), turn) = (problem.text(), problem.sentence());
    let name = reader.tunnel.map(|name| format!("{name}\n")).unwrap_or_default();
    format!("{title}\n{name}{explanation}\n{turn}\n")
}

/// Escapes what means something in HTML. An authority may have some of it.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(problem: Problem, method: &Method, accept: &'static str, tunnel: Option<&str>) -> String {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let authority = tunnel.map(|name| name.parse().unwrap());
        let reader = Reader::new(method, &headers, authority.as_ref());
        match accept {
            "text/html" => html(problem, reader, Some(7)),
            "application/json" => json(problem, reader),
            _ => plain(problem, reader),
        }
    }

    #[test]
    fn a_page_names_the_tunnel_and_whose_turn_it_is() {
        let name = Some("demo.tunnel.example.com:8443");
        let page = told(Problem::Offline, &Method::GET, "text/html", name);
        assert!(page.contains("<code>demo.tunnel.example.com</code>"), "{page}");
        assert!(page.contains("Only the tunnel's owner can change that."), "{page}");
        let page = told(Problem::Offline, &Method::GET, "application/json", name);
        assert!(
            page.contains("\"turn\":\"owner\"") && page.contains("\"tunnel\":\"demo.tunnel.example.com\""),
            "{page}"
        );
        assert_eq!(
            told(Problem::ServiceAbsent, &Method::GET, "*/*", name).lines().collect::<Vec<_>>(),
            [
                "Service not running",
                "demo.tunnel.example.com",
                "The tunnel is connected, but nothing answers behind it. Its owner has to start the service.",
                "Only the tunnel's owner can change that.",
            ]
        );
    }

    #[test]
    fn only_what_was_got_is_loaded_again() {
        assert!(!told(Problem::Offline, &Method::POST, "text/html", None).contains("refresh"));
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let response = page(Problem::ServiceAbsent, Reader::new(&Method::GET, &headers, None));
        assert!(!response.headers().contains_key(RETRY_AFTER));
        let response = page(Problem::Offline, Reader::new(&Method::GET, &headers, None));
        assert_eq!(response.headers()[RETRY_AFTER], "10");
    }

    #[test]
    fn it_is_loaded_again_after_the_wait_and_not_each_second() {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let reader = Reader::new(&Method::GET, &headers, None);
        for (wait, times) in [(1, 5..=6), (7, 7..=8), (100, 100..=125)] {
            for _ in 0..100 {
                let page = html(Problem::TooMany, reader, Some(wait));
                let seconds = page.split("content=\"").nth(2).unwrap().split('"').next().unwrap();
                assert!(times.contains(&seconds.parse().unwrap()), "{wait}: {seconds}");
                assert!(page.contains(&format!("loads again by itself in {seconds} s.")), "{page}");
            }
            assert_eq!(page_until(Problem::TooMany, reader, Some(wait)).headers()[RETRY_AFTER], wait.to_string());
        }
    }

    #[test]
    fn a_name_is_text() {
        let page = told(Problem::UnknownName, &Method::GET, "text/html", Some("a&b'c.example.com"));
        assert!(page.contains("<code>a&amp;b&#39;c.example.com</code>"), "{page}");
    }
}
