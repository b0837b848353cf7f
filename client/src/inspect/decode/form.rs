//! Forms: `application/x-www-form-urlencoded` and `multipart/form-data` with its relatives (RFC 7578, RFC 2046).

use memchr::memmem;
use percent_encoding::percent_decode;

use super::body::{self, Shown};
use super::media_type::{MediaType, parameters_of};

/// The most fields that are shown.
const MOST: usize = 1000;
/// The most parts that are shown, and the most of a part that is multipart itself.
const MOST_PARTS: [usize; 2] = [200, 20];
/// The most fields of a part's head, and its longest head.
const MOST_FIELDS: usize = 20;
const LONGEST_HEAD: usize = 8 << 10;
/// The longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// A field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A part of a multipart body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The name of the form's field, if it has one.
    pub(crate) name: Option<String>,
    /// The name of the file, if it is one.
    pub(crate) file_name: Option<String>,
    /// The fields of the part's head.
    pub(crate) fields: Vec<Pair>,
    /// The part's own content.
    pub(crate) shown: Shown,
}

/// The fields of a form, and whether there are more.
pub(crate) fn urlencoded(bytes: &[u8]) -> (Vec<Pair>, bool) {
    let mut parts = bytes.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    let pairs = parts.by_ref().take(MOST).map(|part| {
        let (name, value) = part.split_at(part.iter().position(|byte| *byte == b'=').unwrap_or(part.len()));
        Pair { name: decoded(name), value: decoded(value.get(1..).unwrap_or_default()) }
    });
    (pairs.collect(), parts.next().is_some())
}

/// A name or value without its encoding. What is not UTF-8 becomes U+FFFD.
pub(crate) fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// The parts of a body, and whether there are more. `None` if the body is not what its type says. `depth` is how many
/// multipart bodies are around it.
pub(super) fn multipart(
    bytes: &[u8],
    media_type: &MediaType,
    is_whole: bool,
    depth: usize,
) -> Option<(Vec<Part>, bool)> {
    let boundary = media_type.parameter("boundary").filter(|it| !it.is_empty() && it.len() <= LONGEST_BOUNDARY)?;
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter may lack its line break.
    let mut rest = match bytes.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => &bytes[memmem::find(bytes, delimiter.as_bytes())? + delimiter.len()..],
    };
    let most = *MOST_PARTS.get(depth)?;
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some((parts, false));
        }
        // Spaces may stand between the delimiter and its line break.
        let Some(line) = memmem::find(rest, b"\r\n").filter(|line| rest[..*line].trim_ascii().is_empty()) else {
            break;
        };
        if parts.len() == most {
            return Some((parts, true));
        }
        // The line break before an empty head is that of the delimiter, so it stays.
        let part = &rest[line..];
        let end = memmem::find(&part[2..], delimiter.as_bytes()).map(|end| end + 2);
        match end {
            Some(end) => {
                parts.push(Part::new(&part[2..end], true, depth));
                rest = &part[end + delimiter.len()..];
            }
            None if is_whole => break,
            None => {
                parts.push(Part::new(&part[2..], false, depth));
                return Some((parts, true));
            }
        }
    }
    (!is_whole).then_some((parts, true))
}

impl Part {
    fn new(part: &[u8], is_whole: bool, depth: usize) -> Self {
        let (head, content) = match part.strip_prefix(b"\r\n") {
            Some(content) => (&b""[..], content),
            None => match memmem::find(&part[..part.len().min(LONGEST_HEAD)], b"\r\n\r\n") {
                Some(end) => (&part[..end], &part[end + 4..]),
                None => (&b""[..], part),
            },
        };
        let head = String::from_utf8_lossy(head);
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some(Pair { name: name.trim().to_owned(), value: value.trim().to_owned() })
        };
        let fields: Vec<_> = head.split("\r\n").filter_map(field).take(MOST_FIELDS).collect();
        let value =
            |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| &*field.value);
        let disposition =
            value("content-disposition").and_then(|value| value.split_once(';')).map(|(_, rest)| parameters_of(rest));
        let parameter =
            |name: &str| disposition.iter().flatten().find(|(it, _)| it == name).map(|(_, value)| value.clone());
        let media_type = MediaType::new(value("content-type").unwrap_or_default().as_bytes());
        Self {
            name: parameter("name"),
            file_name: parameter("filename"),
            shown: body::part(content, &media_type, is_whole, depth + 1),
            fields,
        }
    }
}
