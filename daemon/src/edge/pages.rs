//! What visitors see when there is nothing to pass on: what is wrong and whose turn it is, and nothing else.

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Body;
use crate::own_answers::{STYLE, mark};

/// How soon a visitor may try again while a tunnel is away, in seconds.
const RETRY_SECONDS: &str = "10";

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
    /// Too many requests in a time.
    TooMany,
    /// Too many visitors or exchanges at once.
    Busy,
    /// Too many exchanges of this visitor at once.
    Share,
    /// The visitor has not sent its request's body in time.
    UploadSlow,
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

impl Problem {
    /// The status that says so.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::UnknownName | Self::NoPage | Self::PathDenied => StatusCode::NOT_FOUND,
            Self::PasswordNeeded => StatusCode::UNAUTHORIZED,
            // A 401 would have to name a way to authenticate that programs know (RFC 9110, section 15.5.2).
            Self::NetworkDenied | Self::LinkNeeded | Self::LinkExpired => StatusCode::FORBIDDEN,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
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
            Self::TooMany => ("Too many requests", "More requests came than are allowed. Try again in a moment."),
            Self::Busy => ("Too busy", "This tunnel has as many requests as it can take. Try again in a moment."),
            Self::Share => (
                "Too many requests at once",
                "Your network has as many requests to this tunnel as it may have. Try again once some have ended.",
            ),
            Self::UploadSlow => (
                "Request timeout",
                "The rest of your request did not come in time. Check your connection, and send it again.",
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

/// The page for a problem, in a form that the visitor accepts.
pub(super) fn page(problem: Problem, request: &HeaderMap) -> Response<Body> {
    let status = problem.status();
    let (title, explanation) = problem.text();
    let accept = request.get(ACCEPT).map_or(&b""[..], HeaderValue::as_bytes);
    let accepts = |kind: &[u8]| accept.windows(kind.len()).any(|part| part.eq_ignore_ascii_case(kind));
    let (kind, text) = if accepts(b"text/html") {
        let text = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\n\
             <style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p>{explanation}</p>\n<p><small>{status}</small></p>\n</html>\n",
        );
        ("text/html; charset=utf-8", text)
    } else if accepts(b"json") {
        let json = serde_json::json!({"status": status.as_u16(), "error": title, "message": explanation});
        ("application/json", format!("{json}\n"))
    } else {
        ("text/plain; charset=utf-8", format!("{title}\n{explanation}\n"))
    };
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    mark(headers);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    response
}
