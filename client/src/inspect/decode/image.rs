//! Recognises images that a page may show. Their type and their first bytes must agree. Formats that can hold a script, such
//! as SVG, are not among them.

/// The type of an image, if `bytes` are one and `essence` says so too.
pub(crate) fn recognise(essence: &str, bytes: &[u8]) -> Option<&'static str> {
    let (is_declared, found) = match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
            (matches!(essence, "image/png" | "image/apng"), "image/png")
        }
        [0xff, 0xd8, 0xff, ..] => (matches!(essence, "image/jpeg" | "image/jpg"), "image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => (essence == "image/gif", "image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => (essence == "image/webp", "image/webp"),
        [b'B', b'M', ..] => (matches!(essence, "image/bmp" | "image/x-ms-bmp"), "image/bmp"),
        [0, 0, 1, 0, ..] => (matches!(essence, "image/x-icon" | "image/vnd.microsoft.icon"), "image/x-icon"),
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => {
            let is_avif = brand.starts_with(b"avif") || brand.starts_with(b"avis");
            (is_avif && essence == "image/avif", "image/avif")
        }
        _ => return None,
    };
    is_declared.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_bytes_must_agree() {
        let samples: [(&str, &[u8]); 7] = [
            ("image/png", b"\x89PNG\r\n\x1a\n...."),
            ("image/jpeg", b"\xff\xd8\xff\xe0"),
            ("image/gif", b"GIF89a"),
            ("image/webp", b"RIFF\x01\x02\x03\x04WEBPVP8 "),
            ("image/bmp", b"BM...."),
            ("image/x-icon", b"\0\0\x01\0\x01\0"),
            ("image/avif", b"\0\0\0\x20ftypavif"),
        ];
        for (essence, bytes) in samples {
            assert_eq!(recognise(essence, bytes), Some(essence));
            for other in ["image/svg+xml", "text/html", "", "image/tiff"] {
                assert_eq!(recognise(other, bytes), None);
            }
        }
        assert_eq!(recognise("image/png", samples[1].1), None);
        assert_eq!(recognise("image/png", b"<svg onload=alert(1)>"), None);
        assert_eq!(recognise("image/svg+xml", b"<svg onload=alert(1)>"), None);
        assert_eq!(recognise("image/avif", b"\0\0\0\x20ftypheic"), None);
    }
}
