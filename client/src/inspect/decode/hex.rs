//! The beginning of binary data, as `hexdump -C` prints it.

use std::fmt::Write as _;

/// How much is printed: 256 lines.
const LONGEST: usize = 4 << 10;
/// How many bytes stand on a line.
const LINE: usize = 16;

/// Offset, bytes and ASCII characters of the first 4 KiB.
pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes[..bytes.len().min(LONGEST)].chunks(LINE).enumerate() {
        let _infallible = write!(text, "{:08x} ", number * LINE);
        for place in 0..LINE {
            let gap = if place == LINE / 2 { "  " } else { " " };
            let _infallible = match line.get(place) {
                Some(byte) => write!(text, "{gap}{byte:02x}"),
                None => write!(text, "{gap}  "),
            };
        }
        text.push_str("  |");
        text.extend(line.iter().map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }));
        text.push_str("|\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_offset_bytes_and_characters() {
        assert_eq!(dump(b""), "");
        let expected = "00000000  48 65 6c 6c 6f 00 ff 20  21 21 21 21 21 21 21 21  |Hello.. !!!!!!!!|\n\
                        00000010  21                                                |!|\n";
        assert_eq!(dump(b"Hello\0\xff !!!!!!!!!"), expected);
        assert_eq!(dump(&[0; 10_000]).lines().count(), 256);
    }
}
