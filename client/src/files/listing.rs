//! The page that lists a folder without an index page.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use cap_std::fs::Dir;
use cok_http::html::escape;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::place::{is_name, served};

/// What the page may load: its own style, by the digest of [`STYLE`], and nothing else.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-lVKUfFs8NGlJsLKWEgW5Dyv0lDx96U6HPESia5DG6ZQ='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What its style is.
const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.25rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .75rem .25rem 0;text-align:left;border-bottom:1px solid color-mix(in srgb,currentColor 20%,transparent)}
td:first-child{overflow-wrap:anywhere}
td:nth-child(2),th:nth-child(2){text-align:right;white-space:nowrap}
td:nth-child(3){white-space:nowrap}
";

/// The most entries of a page: a larger one takes browsers long.
const MOST: usize = 5000;

/// The characters of a name that its link writes as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One entry. Folders come first, then the order is that of the names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    is_file: bool,
    name: String,
    size: u64,
    modified: Option<SystemTime>,
}

/// The page of the folder at `real`, which visitors know by `names`.
pub(super) fn page(root: &Dir, real: &Path, names: &[String]) -> io::Result<String> {
    let mut entries = Vec::new();
    let mut is_cut = false;
    for entry in root.read_dir(real)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if entries.len() == MOST {
            is_cut = true;
            break;
        }
        entries.extend(look(root, real, name));
    }
    entries.sort_unstable();
    let path = if names.is_empty() { "/".to_owned() } else { format!("/{}/", names.join("/")) };
    Ok(html(&path, &entries, is_cut))
}

/// An entry if it is served. A link is what it leads to.
fn look(root: &Dir, real: &Path, name: String) -> Option<Entry> {
    if !is_name(&name) {
        return None;
    }
    let metadata = root.metadata(served(root, &real.join(&name)).ok()?).ok()?;
    let is_file = metadata.is_file();
    let modified = metadata.modified().ok().map(cap_std::time::SystemTime::into_std);
    (is_file || metadata.is_dir()).then_some(Entry { is_file, name, size: metadata.len(), modified })
}

fn html(path: &str, entries: &[Entry], is_cut: bool) -> String {
    let title = escape(path);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n\
         <table>\n<tr><th>Name<th>Size<th>Changed (UTC)\n"
    );
    if path != "/" {
        page.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for Entry { is_file, name, size, modified } in entries {
        let slash = if *is_file { "" } else { "/" };
        let size = if *is_file { human(*size) } else { String::new() };
        // "./" keeps a browser from reading a name with a colon as an address.
        let _infallible = writeln!(
            page,
            "<tr><td><a href=\"./{}{slash}\">{}{slash}</a><td>{size}<td>{}",
            utf8_percent_encode(name, PLAIN),
            escape(name),
            modified.map(day_and_time).unwrap_or_default(),
        );
    }
    page.push_str("</table>\n");
    if is_cut {
        let _infallible = writeln!(page, "<p>The folder has more than these {MOST} entries.");
    }
    page
}

/// A size for people.
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A time as `2026-01-31 12:00:00`; nothing for one that RFC 3339 cannot write.
fn day_and_time(time: SystemTime) -> String {
    let mut text = String::new();
    if time < SystemTime::UNIX_EPOCH || write!(text, "{}", humantime::format_rfc3339_seconds(time)).is_err() {
        return String::new();
    }
    text.replace('T', " ").replace('Z', "")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn the_policy_allows_the_style() {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
    }

    #[test]
    fn names_are_text_and_links_stay_here() {
        let name = "javascript:<b>&\"'";
        let entry = Entry { is_file: true, name: name.to_owned(), size: 2048, modified: Some(UNIX_EPOCH) };
        let page = html("/<i>/", &[entry], true);
        assert!(
            page.contains("<a href=\"./javascript%3A%3Cb%3E%26%22%27\">javascript:&lt;b&gt;&amp;&quot;&#39;</a>"),
            "{page}"
        );
        assert!(
            page.contains("<title>/&lt;i&gt;/</title>") && page.contains("2.0 KiB<td>1970-01-01 00:00:00"),
            "{page}"
        );
        assert!(page.contains("more than these"), "{page}");
    }

    #[test]
    fn odd_times_are_left_out() {
        assert_eq!(day_and_time(UNIX_EPOCH - Duration::from_secs(1)), "");
        assert_eq!(day_and_time(UNIX_EPOCH + Duration::from_secs(1 << 40)), "");
    }
}
