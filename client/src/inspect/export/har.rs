//! HTTP Archives: HAR 1.2 (<http://www.softwareishard.com/blog/har-12-spec/>), with Chrome's fields for WebSockets and errors. What
//! the format has no place for stands in fields that begin with an underscore, as it asks for.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Exchange, Field, Half, Passed, Request, Response};
use crate::inspect::decode::{self, BodyLimits, MediaType, MessageKind};
use crate::inspect::secrets::Secrets;

/// What an archive begins with. Entries follow, with commas between them, and then [`end`].
pub(crate) fn begin() -> String {
    let creator = json!({"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")});
    format!(r#"{{"log":{{"version":"1.2","creator":{creator},"entries":["#)
}

/// What an archive ends with.
pub(crate) fn end() -> &'static str {
    "]}}"
}

/// A request as an entry of an archive.
pub(crate) fn entry(exchange: &Exchange<'_>, secrets: Secrets) -> Value {
    let Exchange { timings, messages, .. } = exchange;
    let mut entry = json!({
        "startedDateTime": humantime::format_rfc3339_millis(exchange.began).to_string(),
        "request": request(&exchange.request, exchange.protocol, secrets),
        "response": response(exchange, secrets),
        "cache": {},
        "_id": exchange.id,
    });
    let (send, wait) = match (timings.request, timings.service) {
        (Some(send), Some(wait)) => (send, wait),
        _ => (Duration::ZERO, timings.total.saturating_sub(timings.response.unwrap_or_default())),
    };
    let parts = [send, wait, timings.response.unwrap_or_default()].map(milliseconds);
    // The format wants the sum of the parts, which may differ from the whole by their rounding.
    entry["time"] = parts.iter().sum::<f64>().into();
    entry["timings"] = json!({"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": parts[0], "wait": parts[1], "receive": parts[2]});
    let mut note = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            entry[name] = value;
        }
    };
    note("_tunnel", exchange.tunnel.map(Into::into));
    note("_traceId", exchange.trace_id.map(Into::into));
    note("_replayOf", exchange.replay_of.map(Into::into));
    if is_websocket(exchange) {
        note("_resourceType", Some("websocket".into()));
        note("_webSocketMessages", Some(messages.iter().filter_map(websocket_message).collect()));
    } else if !messages.is_empty() {
        note("_messages", Some(messages.iter().map(message).collect()));
    }
    entry
}

fn request(request: &Request<'_>, protocol: Option<&str>, secrets: Secrets) -> Value {
    let content = &request.content;
    let target = secrets.target(request.target);
    let target = String::from_utf8_lossy(&target);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut value = json!({
        "method": request.method,
        "url": format!("{}{target}", request.origin),
        "httpVersion": protocol.unwrap_or("HTTP/1.1"),
        "cookies": content.values("cookie").flat_map(|cookie| request_cookies(&secrets.field("cookie", cookie))).collect::<Value>(),
        "headers": fields(&content.fields, secrets),
        "queryString": pairs(query.as_bytes(), secrets),
        "headersSize": -1,
        "bodySize": content.size,
    });
    // The bytes behind an upgrade are no body.
    if content.size > 0 && content.values("upgrade").next().is_none() {
        value["postData"] = post_data(content, secrets);
    }
    add_trailers(&mut value, content, secrets);
    value
}

fn response(exchange: &Exchange<'_>, secrets: Secrets) -> Value {
    // A request without a response has one with the status 0, as Chrome writes it.
    let none = Response { status: 0, reason: b"", content: Half { is_whole: true, ..Half::default() } };
    let Response { status, reason, content } = exchange.response.as_ref().unwrap_or(&none);
    let is_body = *status != 101;
    let cookies = content.values("set-cookie").map(|cookie| response_cookie(&secrets.field("set-cookie", cookie)));
    let location = content.values("location").next().unwrap_or_default();
    let mut value = json!({
        "status": status,
        "statusText": text(reason),
        "httpVersion": exchange.protocol.unwrap_or("HTTP/1.1"),
        "cookies": cookies.collect::<Value>(),
        "headers": fields(&content.fields, secrets),
        "content": if is_body { body_content(content) } else { json!({"size": 0, "mimeType": ""}) },
        "redirectURL": text(&secrets.field("location", location)),
        "headersSize": -1,
        "bodySize": content.size,
    });
    if let Some(failure) = exchange.failure {
        value["_error"] = failure.into();
    }
    add_trailers(&mut value, content, secrets);
    value
}

fn add_trailers(value: &mut Value, content: &Half<'_>, secrets: Secrets) {
    if !content.trailers.is_empty() {
        value["_trailers"] = fields(&content.trailers, secrets);
    }
}

fn fields(fields: &[Field<'_>], secrets: Secrets) -> Value {
    let field = |field: &Field<'_>| json!({"name": field.name, "value": text(&secrets.field(field.name, field.value))});
    fields.iter().map(field).collect()
}

/// Parameters of a query or a form without their encoding.
fn pairs(query: &[u8], secrets: Secrets) -> Value {
    let (pairs, _more) = decode::urlencoded(query);
    pairs.iter().map(|pair| json!({"name": pair.name, "value": secrets.value(&pair.name, &pair.value)})).collect()
}

fn post_data(content: &Half<'_>, secrets: Secrets) -> Value {
    let content_type = content.content_type();
    let plain = plain(content);
    let mut value = json!({"mimeType": text(content_type)});
    let is_form = MediaType::new(content_type).essence == "application/x-www-form-urlencoded";
    let bytes = if is_form { secrets.form(&plain.bytes) } else { plain.bytes.as_slice().into() };
    put_text(&mut value, &bytes, "_encoding");
    if is_form {
        value["params"] = pairs(&plain.bytes, secrets);
    }
    if let Some(comment) = comment(content, &plain) {
        value["comment"] = comment.into();
    }
    value
}

fn body_content(content: &Half<'_>) -> Value {
    let plain = plain(content);
    let mut value = json!({"size": plain.bytes.len(), "mimeType": text(content.content_type())});
    if content.is_whole && !plain.is_truncated {
        let signed = |length: u64| i64::try_from(length).unwrap_or(i64::MAX);
        value["compression"] = (signed(plain.bytes.len() as u64) - signed(content.size)).into();
    }
    if !plain.bytes.is_empty() {
        put_text(&mut value, &plain.bytes, "encoding");
    }
    if let Some(comment) = comment(content, &plain) {
        value["comment"] = comment.into();
    }
    value
}

/// A body without its content codings, or with them if they can't be undone.
fn plain(content: &Half<'_>) -> decode::Plain {
    let limits = BodyLimits::default();
    let mut plain = decode::decoded(content.body, content.values("content-encoding"), content.is_whole, limits);
    if plain.is_coded {
        plain.bytes = content.body[..content.body.len().min(limits.output)].to_vec();
        plain.is_truncated = plain.bytes.len() < content.body.len() || !content.is_whole;
    }
    plain
}

/// What is to be said about a body.
fn comment(content: &Half<'_>, plain: &decode::Plain) -> Option<String> {
    let cut =
        || plain.is_truncated.then(|| format!("cut: {} of {} bytes were captured", content.body.len(), content.size));
    plain.trouble.as_ref().map(ToString::to_string).or_else(cut)
}

/// Puts a body into `value`: as text, or as Base64 whose name stands in the field `encoding`.
fn put_text(value: &mut Value, bytes: &[u8], encoding: &str) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        value["text"] = text.into();
    } else {
        value["text"] = STANDARD.encode(bytes).into();
        value[encoding] = "base64".into();
    }
}

fn request_cookies(value: &[u8]) -> Vec<Value> {
    let text = text(value);
    let cookie = |cookie: &str| {
        let (name, value) = cookie.split_once('=').unwrap_or(("", cookie));
        json!({"name": name.trim(), "value": value.trim()})
    };
    text.split(';').filter(|cookie| !cookie.trim().is_empty()).map(cookie).collect()
}

fn response_cookie(value: &[u8]) -> Value {
    let text = text(value);
    let mut parts = text.split(';').map(str::trim);
    let (name, content) = parts.next().and_then(|cookie| cookie.split_once('=')).unwrap_or_default();
    let mut cookie = json!({"name": name.trim(), "value": content.trim(), "httpOnly": false, "secure": false});
    for attribute in parts {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name.to_ascii_lowercase().as_str() {
            "path" => cookie["path"] = value.into(),
            "domain" => cookie["domain"] = value.into(),
            "samesite" => cookie["sameSite"] = value.into(),
            "httponly" => cookie["httpOnly"] = true.into(),
            "secure" => cookie["secure"] = true.into(),
            "expires" => {
                // Dates in other forms are left out, because the format wants ISO 8601.
                if let Ok(date) = httpdate::parse_http_date(value) {
                    cookie["expires"] = humantime::format_rfc3339_millis(date).to_string().into();
                }
            }
            _ => {}
        }
    }
    cookie
}

fn is_websocket(exchange: &Exchange<'_>) -> bool {
    exchange.response.as_ref().is_some_and(|response| {
        response.status == 101
            && response.content.values("upgrade").any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    })
}

/// A WebSocket's message as Chrome writes it. It leaves out control frames.
fn websocket_message(passed: &Passed<'_>) -> Option<Value> {
    let message = passed.message;
    let (opcode, data) = match message.kind {
        MessageKind::Text => (1, text(&message.bytes).into_owned()),
        MessageKind::Binary => (2, STANDARD.encode(&message.bytes)),
        _ => return None,
    };
    let way = if passed.is_from_visitor { "send" } else { "receive" };
    let time = passed.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Some(json!({"type": way, "time": time, "opcode": opcode, "data": data}))
}

/// A message of another kind.
fn message(passed: &Passed<'_>) -> Value {
    let message = passed.message;
    let from = if passed.is_from_visitor { "visitor" } else { "service" };
    let mut value = json!({"from": from, "time": date(passed.at), "kind": message.kind.name(), "size": message.size});
    put_text(&mut value, &message.bytes, "encoding");
    if let MessageKind::Event { name, id, .. } = &message.kind {
        for (key, text) in [("event", name), ("id", id)] {
            if let Some(text) = text {
                value[key] = text.as_str().into();
            }
        }
    }
    value
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Milliseconds with three digits behind the point.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests;
