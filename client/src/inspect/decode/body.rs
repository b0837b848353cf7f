//! A whole body as people read it. It is decoded when somebody looks at it.

use super::charset::Charset;
use super::codings::{Chain, Growth};
use super::form::{self, Pair, Part};
use super::media_type::MediaType;
use super::{Coding, Trouble, hex, image, json};

/// How much is decompressed at a time.
const SCRATCH: usize = 64 << 10;
/// How much is looked at to tell text from binary data.
const SAMPLE: usize = 4 << 10;

/// What a body may take while it is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// The most bytes that come out of the content codings.
    pub(crate) output: usize,
    /// The largest window of a decoder.
    pub(crate) window: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        // 8 MiB are more than a page shows without stalling, and the largest window of zstd in HTTP (RFC 9659).
        Self { output: 8 << 20, window: 8 << 20 }
    }
}

/// A body, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// What there is to see.
    pub(crate) content: Content,
    /// The type of the content in lower case. Empty if it has none.
    pub(crate) media_type: String,
    /// The length of the content without its codings, as far as it was decoded.
    pub(crate) size: u64,
    /// There is more than is shown.
    pub(crate) is_truncated: bool,
    /// Why it is not all shown, or not as it was meant.
    pub(crate) trouble: Option<Trouble>,
}

/// What there is to see of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// Text.
    Text {
        /// The text, laid out if `is_laid_out`.
        text: String,
        /// The language that it is written in.
        language: Language,
        /// Line breaks and spaces are ours.
        is_laid_out: bool,
    },
    /// The fields of a form.
    Form(Vec<Pair>),
    /// Parts with contents of their own.
    Multipart(Vec<Part>),
    /// An image that a page may show.
    Image {
        /// Its type.
        media_type: &'static str,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Other data: its beginning in hexadecimal.
    Binary {
        /// The dump.
        dump: String,
    },
}

/// What a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// No language that is known here.
    Plain,
    /// JSON.
    Json,
    /// HTML.
    Html,
    /// XML.
    Xml,
    /// CSS.
    Css,
    /// JavaScript.
    JavaScript,
}

impl Language {
    /// Its name in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
            Self::Html => "html",
            Self::Xml => "xml",
            Self::Css => "css",
            Self::JavaScript => "javascript",
        }
    }
}

/// Decodes a body for people. `encodings` are the values of `Content-Encoding`. `is_whole` says that none of the body is
/// missing.
pub(crate) fn body<'a>(
    bytes: &[u8],
    content_type: &[u8],
    encodings: impl IntoIterator<Item = &'a [u8]>,
    is_whole: bool,
    limits: BodyLimits,
) -> Shown {
    let media_type = MediaType::new(content_type);
    let plain = decoded(bytes, encodings, is_whole, limits);
    if plain.is_coded {
        // The codings can't be undone, so there is no content to interpret.
        let content = Content::Binary { dump: hex::dump(bytes) };
        let size = bytes.len() as u64;
        let is_truncated = true;
        return Shown { content, media_type: media_type.essence, size, is_truncated, trouble: plain.trouble };
    }
    let shown = part(&plain.bytes, &media_type, is_whole && !plain.is_truncated, 0);
    Shown {
        size: plain.bytes.len() as u64,
        is_truncated: shown.is_truncated || plain.is_truncated,
        trouble: plain.trouble.or(shown.trouble),
        ..shown
    }
}

/// A body without its content codings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    /// Its bytes, up to [`BodyLimits::output`].
    pub(crate) bytes: Vec<u8>,
    /// There are more.
    pub(crate) is_truncated: bool,
    /// The codings could not be undone at all, so `bytes` is empty.
    pub(crate) is_coded: bool,
    /// Why some of it is missing.
    pub(crate) trouble: Option<Trouble>,
}

/// Undoes the content codings of a body.
pub(crate) fn decoded<'a>(
    bytes: &[u8],
    encodings: impl IntoIterator<Item = &'a [u8]>,
    is_whole: bool,
    limits: BodyLimits,
) -> Plain {
    let codings = match Coding::list(encodings) {
        Ok(codings) => codings,
        Err(trouble) => return Plain { bytes: Vec::new(), is_truncated: true, is_coded: true, trouble: Some(trouble) },
    };
    // A response to HEAD names codings and has no body.
    if codings.is_empty() || bytes.is_empty() {
        let shown = &bytes[..bytes.len().min(limits.output)];
        let is_truncated = shown.len() < bytes.len() || !is_whole;
        return Plain { bytes: shown.to_vec(), is_truncated, is_coded: false, trouble: None };
    }
    let mut all = Vec::new();
    let result = undo(&codings, bytes, limits, &mut all);
    let (is_truncated, trouble) = match result {
        Ok(is_complete) => {
            let is_cut = all.len() == limits.output || !is_whole;
            (!is_complete, (!is_complete && !is_cut).then_some(Trouble::EndsEarly))
        }
        Err(trouble) => (true, Some(trouble)),
    };
    let is_coded = all.is_empty() && matches!(trouble, Some(Trouble::Damaged(..) | Trouble::TooMuchMemory(_)));
    Plain { bytes: all, is_truncated, is_coded, trouble }
}

/// Undoes codings up to the limit. Returns whether that is all.
fn undo(codings: &[Coding], mut input: &[u8], limits: BodyLimits, out: &mut Vec<u8>) -> Result<bool, Trouble> {
    let mut chain = Chain::new(codings, limits.window);
    // The output has a limit, so this one is for codings within codings.
    let mut growth = Growth::new(2 * limits.output as u64);
    let mut scratch = vec![0; SCRATCH];
    loop {
        let room = (limits.output - out.len()).min(SCRATCH);
        if room == 0 {
            return Ok(chain.is_complete());
        }
        let step = chain.step(input, &mut scratch[..room])?;
        input = &input[step.taken..];
        out.extend_from_slice(&scratch[..step.made]);
        growth.add(step.taken, step.work)?;
        if step.taken == 0 && step.made == 0 {
            return Ok(chain.is_complete());
        }
    }
}

/// Content without codings: a body, or a part of one.
pub(super) fn part(bytes: &[u8], media_type: &MediaType, is_whole: bool, depth: usize) -> Shown {
    let mut shown = Shown {
        content: Content::Empty,
        media_type: media_type.essence.clone(),
        size: bytes.len() as u64,
        is_truncated: !is_whole,
        trouble: None,
    };
    if bytes.is_empty() {
        return shown;
    }
    let essence = media_type.essence.as_str();
    shown.content = if let Some(media_type) = image::recognise(essence, bytes).filter(|_| is_whole) {
        Content::Image { media_type, bytes: bytes.to_vec() }
    } else if essence == "application/x-www-form-urlencoded" && is_text(bytes) {
        let (pairs, has_more) = form::urlencoded(bytes);
        shown.is_truncated |= has_more;
        Content::Form(pairs)
    } else if essence.starts_with("multipart/")
        && let Some((parts, has_more)) = form::multipart(bytes, media_type, is_whole, depth)
    {
        shown.is_truncated |= has_more;
        Content::Multipart(parts)
    } else {
        text(bytes, media_type, is_whole, &mut shown.trouble)
    };
    shown
}

/// Text, if it is some, or else a dump.
fn text(bytes: &[u8], media_type: &MediaType, is_whole: bool, trouble: &mut Option<Trouble>) -> Content {
    let declared = media_type.parameter("charset");
    let (charset, bytes) = match (Charset::of_mark(bytes), declared.map(Charset::named)) {
        (Some((charset, mark)), _) => (charset, &bytes[mark..]),
        (None, Some(Some(charset))) => (charset, bytes),
        (None, Some(None)) => {
            *trouble = Some(Trouble::UnknownCharset(declared.unwrap_or_default().chars().take(40).collect()));
            (Charset::Utf8, bytes)
        }
        (None, None) => (Charset::Utf8, bytes),
    };
    if charset == Charset::Utf8 && !is_text(bytes) {
        return Content::Binary { dump: hex::dump(bytes) };
    }
    let text = charset.decode(bytes);
    let language = language(media_type, &text);
    let laid_out = if language == Language::Json { json::pretty(&text, is_whole) } else { None };
    Content::Text { is_laid_out: laid_out.is_some(), text: laid_out.unwrap_or_else(|| text.into_owned()), language }
}

fn language(media_type: &MediaType, text: &str) -> Language {
    match media_type.essence.as_str() {
        "text/html" | "application/xhtml+xml" => Language::Html,
        "text/css" => Language::Css,
        "text/javascript" | "application/javascript" | "application/x-javascript" => Language::JavaScript,
        _ if media_type.is_json() => Language::Json,
        _ if media_type.is_xml() => Language::Xml,
        // Webhooks send JSON without a type, or with this one.
        "" | "text/plain" if text.trim_start().starts_with(['{', '[']) => Language::Json,
        _ => Language::Plain,
    }
}

/// Whether the beginning looks like text in UTF-8, perhaps with mistakes.
fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let is_odd = |c: char| {
        c == char::REPLACEMENT_CHARACTER || (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b'))
    };
    let odd = String::from_utf8_lossy(sample).chars().filter(|c| is_odd(*c)).count();
    !sample.contains(&0) && odd * 20 <= sample.len()
}

#[cfg(test)]
mod tests;
