use super::super::Timings;
use super::*;
use crate::inspect::decode::Message;

/// The members that HAR 1.2 asks for, and the types of theirs.
const ENTRY: &[(&str, &str)] = &[
    ("startedDateTime", "string"),
    ("time", "number"),
    ("request", "object"),
    ("response", "object"),
    ("cache", "object"),
    ("timings", "object"),
];
const REQUEST: &[(&str, &str)] = &[
    ("method", "string"),
    ("url", "string"),
    ("httpVersion", "string"),
    ("cookies", "array"),
    ("headers", "array"),
    ("queryString", "array"),
    ("headersSize", "number"),
    ("bodySize", "number"),
];
const RESPONSE: &[(&str, &str)] = &[
    ("status", "number"),
    ("statusText", "string"),
    ("httpVersion", "string"),
    ("cookies", "array"),
    ("headers", "array"),
    ("content", "object"),
    ("redirectURL", "string"),
    ("headersSize", "number"),
    ("bodySize", "number"),
];
const CONTENT: &[(&str, &str)] = &[("size", "number"), ("mimeType", "string")];
const TIMINGS: &[(&str, &str)] = &[("send", "number"), ("wait", "number"), ("receive", "number")];
const NAMED: &[(&str, &str)] = &[("name", "string"), ("value", "string")];

/// Checks the members that an entry must have.
fn check(entry: &Value) {
    let has = |value: &Value, members: &[(&str, &str)]| {
        for (name, expected) in members {
            let found = match &value[*name] {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
                Value::Null | Value::Bool(_) => "nothing",
            };
            assert_eq!(found, *expected, "{name} of {value}");
        }
    };
    has(entry, ENTRY);
    has(&entry["request"], REQUEST);
    has(&entry["response"], RESPONSE);
    has(&entry["response"]["content"], CONTENT);
    has(&entry["timings"], TIMINGS);
    for list in [
        &entry["request"]["headers"],
        &entry["request"]["queryString"],
        &entry["request"]["cookies"],
        &entry["response"]["headers"],
        &entry["response"]["cookies"],
    ] {
        list.as_array().unwrap().iter().for_each(|named| has(named, NAMED));
    }
    if let Some(data) = entry["request"].get("postData") {
        has(data, &[("mimeType", "string"), ("text", "string")]);
    }
    let sum: f64 = ["send", "wait", "receive"].iter().map(|name| entry["timings"][name].as_f64().unwrap()).sum();
    assert!((entry["time"].as_f64().unwrap() - sum).abs() < 1e-9);
}

fn half<'a>(fields: &[(&'a str, &'a str)], body: &'a [u8]) -> Half<'a> {
    let fields = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    Half { fields, body, size: body.len() as u64, is_whole: true, ..Half::default() }
}

fn exchange<'a>(
    method: &'a str,
    target: &'a str,
    request: Half<'a>,
    response: Option<(u16, Half<'a>)>,
) -> Exchange<'a> {
    Exchange {
        id: 7,
        tunnel: Some("web"),
        began: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        request: Request { method, origin: "https://a.example", target: target.as_bytes(), content: request },
        response: response.map(|(status, content)| Response { status, reason: b"OK", content }),
        timings: Timings {
            request: Some(Duration::from_micros(1500)),
            service: Some(Duration::from_micros(20_250)),
            response: Some(Duration::from_micros(250)),
            total: Duration::from_millis(22),
        },
        failure: None,
        protocol: Some("HTTP/1.1"),
        trace_id: None,
        replay_of: None,
        messages: &[],
    }
}

#[test]
fn an_exchange_is_an_entry() {
    let request = half(
        &[
            ("cookie", "a=1; b=2"),
            ("x-twice", "1"),
            ("x-twice", "2"),
            ("content-type", "application/x-www-form-urlencoded"),
        ],
        b"user=me&password=x",
    );
    let set =
        "id=secret; Path=/; Domain=a.example; Expires=Wed, 21 Oct 2015 07:28:00 GMT; HttpOnly; Secure; SameSite=Lax";
    let body = crate::inspect::decode::tests::gzip(b"{\"a\":1}");
    let response = half(
        &[
            ("set-cookie", set),
            ("content-type", "application/json"),
            ("content-encoding", "gzip"),
            ("location", "/x?token=1"),
        ],
        &body,
    );
    let exchange = exchange("POST", "/p?q=%C3%A9&token=1", request, Some((200, response)));
    let entry = entry(&exchange, Secrets::Masked);
    check(&entry);
    assert_eq!(entry["startedDateTime"], "2023-11-14T22:13:20.123Z");
    assert_eq!((&entry["time"], &entry["timings"]["wait"]), (&json!(22.0), &json!(20.25)));
    let request = &entry["request"];
    assert_eq!(request["url"], "https://a.example/p?q=%C3%A9&token=•••");
    assert_eq!(request["queryString"], json!([{"name": "q", "value": "é"}, {"name": "token", "value": "•••"}]));
    assert_eq!(request["cookies"], json!([{"name": "a", "value": "•••"}, {"name": "b", "value": "•••"}]));
    assert_eq!(request["headers"][1], json!({"name": "x-twice", "value": "1"}));
    assert_eq!(request["headers"][2], json!({"name": "x-twice", "value": "2"}));
    assert_eq!(request["postData"]["text"], "user=me&password=•••");
    assert_eq!(request["postData"]["params"][1], json!({"name": "password", "value": "•••"}));
    let response = &entry["response"];
    assert_eq!(
        response["cookies"][0],
        json!({"name": "id", "value": "•••", "path": "/", "domain": "a.example", "expires": "2015-10-21T07:28:00.000Z",
               "httpOnly": true, "secure": true, "sameSite": "Lax"})
    );
    assert_eq!(response["redirectURL"], "/x?token=•••");
    assert_eq!(
        response["content"],
        json!({"size": 7, "compression": 7 - i64::try_from(body.len()).unwrap(), "mimeType": "application/json", "text": "{\"a\":1}"})
    );
    let revealed = super::entry(&exchange, Secrets::Revealed);
    assert_eq!(revealed["request"]["url"], "https://a.example/p?q=%C3%A9&token=1");
    assert_eq!(revealed["request"]["postData"]["text"], "user=me&password=x");
    assert_eq!(revealed["response"]["cookies"][0]["value"], "secret");
}

#[test]
fn binary_and_cut_bodies_are_marked() {
    let mut response = half(&[("content-type", "image/png")], b"\x89PNG");
    let request = half(&[], b"\xff\xfe");
    let whole = entry(&exchange("PUT", "/", request.clone(), Some((200, response.clone()))), Secrets::Masked);
    check(&whole);
    assert_eq!(whole["response"]["content"]["encoding"], "base64");
    assert_eq!(whole["response"]["content"]["text"], "iVBORw==");
    assert_eq!(
        (&whole["request"]["postData"]["text"], &whole["request"]["postData"]["_encoding"]),
        (&json!("//4="), &json!("base64"))
    );
    (response.is_whole, response.size) = (false, 5000);
    let cut = entry(&exchange("PUT", "/", request, Some((200, response))), Secrets::Masked);
    assert_eq!(cut["response"]["content"]["comment"], "cut: 4 of 5000 bytes were captured");
    assert_eq!(cut["response"]["bodySize"], 5000);
    assert_eq!(cut["response"]["content"].get("compression"), None);
}

#[test]
fn a_request_without_a_response_has_the_status_0() {
    let mut exchange = exchange("GET", "/", half(&[], b""), None);
    exchange.failure = Some("the service refused the connection");
    exchange.timings = Timings { total: Duration::from_millis(3), ..Timings::default() };
    exchange.replay_of = Some(3);
    let entry = entry(&exchange, Secrets::Masked);
    check(&entry);
    assert_eq!((&entry["response"]["status"], &entry["time"]), (&json!(0), &json!(3.0)));
    assert_eq!(entry["response"]["_error"], "the service refused the connection");
    assert_eq!((&entry["_replayOf"], &entry["_id"], &entry["_tunnel"]), (&json!(3), &json!(7), &json!("web")));
}

#[test]
fn messages_stand_in_chromes_field_or_ours() {
    let at = UNIX_EPOCH + Duration::from_millis(1500);
    let message = |kind, bytes: &[u8]| Message {
        ordinal: 0,
        offset: 0,
        kind,
        size: bytes.len() as u64,
        sent: bytes.len() as u64,
        bytes: bytes.to_vec(),
        trouble: None,
    };
    let all =
        [message(MessageKind::Text, b"hi"), message(MessageKind::Ping, b""), message(MessageKind::Binary, b"\xff")];
    let passed = |is_from_visitor, message| Passed { is_from_visitor, at, message };
    let messages = [passed(true, &all[0]), passed(false, &all[1]), passed(false, &all[2])];
    let upgrade = [("upgrade", "WebSocket"), ("connection", "upgrade")];
    let mut socket =
        exchange("GET", "/ws", half(&upgrade, b"\x81\x02hi"), Some((101, half(&upgrade, b"\x82\x01\xff"))));
    socket.messages = &messages;
    let entry = entry(&socket, Secrets::Masked);
    check(&entry);
    assert_eq!(
        entry["_webSocketMessages"],
        json!([{"type": "send", "time": 1.5, "opcode": 1, "data": "hi"}, {"type": "receive", "time": 1.5, "opcode": 2, "data": "/w=="}])
    );
    assert_eq!((entry["request"].get("postData"), entry["response"]["content"].get("text")), (None, None));

    let kind = MessageKind::Event { name: Some("tick".into()), id: None, retry: None, has_data: true };
    let event = message(kind, b"data");
    let messages = [passed(false, &event)];
    let mut stream =
        exchange("GET", "/events", half(&[], b""), Some((200, half(&[("content-type", "text/event-stream")], b""))));
    stream.messages = &messages;
    let entry = super::entry(&stream, Secrets::Masked);
    check(&entry);
    let expected = json!({"from": "service", "time": "1970-01-01T00:00:01.500Z", "kind": "event", "event": "tick", "size": 4, "text": "data"});
    assert_eq!(entry["_messages"], json!([expected]));
}

#[test]
fn an_archive_is_one_json_text() {
    let entry = entry(&exchange("GET", "/", half(&[], b""), Some((204, half(&[], b"")))), Secrets::Masked);
    let archive: Value = serde_json::from_str(&format!("{}{entry},{entry}{}", begin(), end())).unwrap();
    assert_eq!(archive["log"]["version"], "1.2");
    assert_eq!(archive["log"]["creator"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(archive["log"]["entries"].as_array().unwrap().len(), 2);
    assert_eq!(serde_json::from_str::<Value>(&format!("{}{}", begin(), end())).unwrap()["log"]["entries"], json!([]));
}
