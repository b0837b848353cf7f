//! Which directions consist of messages, by the type of their content.

use super::{Coding, Kind};

impl Kind {
    /// The messages of a body with this `Content-Type`. `grpc_encoding` is the value of `grpc-encoding` or
    /// `connect-content-encoding`. `None` if the body is one piece.
    pub(crate) fn of_body(content_type: &[u8], grpc_encoding: Option<&[u8]>) -> Option<Self> {
        let essence =
            content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let (kind, subtype) = essence.split_at(essence.iter().position(|byte| *byte == b'/')?);
        let coding = grpc_encoding.and_then(|name| Coding::named(name.trim_ascii()).ok());
        match (kind, &subtype[1..]) {
            (b"text", b"event-stream") => Some(Self::EventStream),
            (
                b"application",
                b"x-ndjson" | b"ndjson" | b"jsonl" | b"x-jsonl" | b"jsonlines" | b"x-jsonlines" | b"stream+json",
            ) => Some(Self::Lines),
            (b"application", b"json-seq") => Some(Self::Sequence),
            (b"application", subtype) => {
                let is =
                    |name: &[u8]| subtype.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest[0] == b'+');
                if is(b"grpc-web-text") {
                    Some(Self::Grpc { coding, is_text: true })
                } else if is(b"grpc") || is(b"grpc-web") || subtype.starts_with(b"connect+") {
                    Some(Self::Grpc { coding, is_text: false })
                } else {
                    None
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_name_kinds() {
        let kind = |content_type: &str| Kind::of_body(content_type.as_bytes(), Some(b"gzip"));
        assert_eq!(kind("Text/Event-Stream; charset=utf-8"), Some(Kind::EventStream));
        assert_eq!(kind("application/x-ndjson"), Some(Kind::Lines));
        assert_eq!(kind("application/json-seq"), Some(Kind::Sequence));
        let grpc = |is_text| Some(Kind::Grpc { coding: Some(Coding::Gzip), is_text });
        assert_eq!(kind("application/grpc"), grpc(false));
        assert_eq!(kind("application/grpc-web+proto"), grpc(false));
        assert_eq!(kind("application/connect+json"), grpc(false));
        assert_eq!(kind("application/grpc-web-text+proto; x=y"), grpc(true));
        for other in ["", "text", "text/", "application/json", "application/grpcs", "application/connect", "text/plain"]
        {
            assert_eq!(kind(other), None, "{other}");
        }
        assert_eq!(Kind::of_body(b"application/grpc", None), Some(Kind::Grpc { coding: None, is_text: false }));
    }
}
