//! Bodies: without their content codings, and as people read them.

use std::io;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;

use crate::inspect::decode::{self, BodyLimits, Content, Pair, Part, Plain, Shown};
use crate::inspect::live::Side;
use crate::inspect::secrets::Secrets;
use crate::inspect::shared::Shared;
use crate::inspect::store::Entry;

/// A body as people read it.
#[derive(Debug, Serialize)]
pub(in crate::inspect) struct ShownBody {
    /// Its type without parameters, if it has one.
    media_type: String,
    /// The bytes without content codings, as far as they were decoded.
    size: u64,
    /// Only its beginning is here.
    truncated: bool,
    /// Why it is not all here, or not as it was meant.
    trouble: Option<String>,
    #[serde(flatten)]
    content: ShownContent,
}

/// What there is to see.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum ShownContent {
    Empty,
    Text { text: String, language: &'static str, laid_out: bool },
    Form { fields: Vec<[String; 2]> },
    Multipart { parts: Vec<ShownPart> },
    Image { image_type: &'static str },
    Binary { dump: String },
}

/// A part of a multipart body.
#[derive(Debug, Serialize)]
struct ShownPart {
    name: Option<String>,
    file_name: Option<String>,
    fields: Vec<[String; 2]>,
    body: ShownBody,
}

impl ShownBody {
    /// A direction's body. This may wait for the disk.
    pub(in crate::inspect) fn new(shared: &Shared, entry: &Entry, side: Side, secrets: Secrets) -> io::Result<Self> {
        let fields = entry.fields(side);
        let bytes = entry.part(side).read(&shared.store.spool, usize::MAX)?;
        let content_type = fields.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let shown = decode::body(&bytes, content_type, codings(&fields), entry.is_whole(side), BodyLimits::default());
        Ok(Self::of(shown, secrets))
    }

    fn of(shown: Shown, secrets: Secrets) -> Self {
        let Shown { content, media_type, size, is_truncated, trouble } = shown;
        let content = match content {
            Content::Empty => ShownContent::Empty,
            Content::Text { text, language, is_laid_out } => {
                ShownContent::Text { text, language: language.name(), laid_out: is_laid_out }
            }
            Content::Form(pairs) => {
                ShownContent::Form { fields: pairs.into_iter().map(|it| pair(it, secrets)).collect() }
            }
            Content::Multipart(parts) => {
                ShownContent::Multipart { parts: parts.into_iter().map(|part| ShownPart::of(part, secrets)).collect() }
            }
            Content::Image { media_type, .. } => ShownContent::Image { image_type: media_type },
            Content::Binary { dump } => ShownContent::Binary { dump },
        };
        Self { media_type, size, truncated: is_truncated, trouble: trouble.map(|trouble| trouble.to_string()), content }
    }
}

impl ShownPart {
    fn of(part: Part, secrets: Secrets) -> Self {
        let Part { name, file_name, fields, shown } = part;
        let fields = fields.into_iter().map(|Pair { name, value }| [name, value]).collect();
        Self { name, file_name, fields, body: ShownBody::of(shown, secrets) }
    }
}

fn pair(Pair { name, value }: Pair, secrets: Secrets) -> [String; 2] {
    let value = secrets.value(&name, &value).to_owned();
    [name, value]
}

/// A direction's body without its content codings, up to `limit` bytes. This may wait for the disk.
pub(in crate::inspect) fn plain(
    shared: &Shared,
    entry: &Entry,
    side: Side,
    fields: &HeaderMap,
    limit: usize,
) -> io::Result<Plain> {
    let bytes = entry.part(side).read(&shared.store.spool, usize::MAX)?;
    let limits = BodyLimits { output: limit, ..BodyLimits::default() };
    Ok(decode::decoded(&bytes, codings(fields), entry.is_whole(side), limits))
}

/// The values of `Content-Encoding`.
fn codings(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    fields.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes)
}
