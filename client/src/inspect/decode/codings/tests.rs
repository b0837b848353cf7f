use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

const WINDOW: usize = 4 << 20;

/// [`events`] as Google's encoder writes them with quality 5, flushed behind each event.
const BROTLI: &str = "ixyAZXZlbnQ6IHRpY2sKZGF0YTogeyJuIjowLCJ0ZXh0IjoidGhlIHF1aWNrIGJyb3duIGZveCAwIn0KCsgBAEBaQSSmTzKhCjFxnfbKwQDIAQBA\
    YCLnCQbY7vokgglVApDe82AAyAEAQGADzhMMNNrhJIIJVQKQ3vNgANABAEDAIecXPFhby60kgglZApDeZR4M0AEAQGAi5wkG+C3HJxOyEBPF8bI8GNABAEBq\
    xiaJYGKRyKRfNgDQAQBAiuYmiWBikdik32sA0AEAQMoGJ4lgYpHgpB/ZANABAEAKJyeJYGKR6KRf1gDgAQBACiYmiZikmTo8GTsVA+ABAEBCJolYpJgqMjra\
    DQM=";
/// [`events`] as Facebook's encoder writes them at level 3 with a checksum, flushed behind each event.
const ZSTD: &str = "KLUv/QRY0AEAZXZlbnQ6IHRpY2sKZGF0YTogeyJuIjowLCJ0ZXh0IjoidGhlIHF1aWNrIGJyb3duIGZveCAwIn0KCnQAADAxMSJ9CgoCAOCWXisgfAAAO\
    GUyNCJ9CgoCAOAWBVwBfAAAOGUzOSJ9CgoCAOAWBVwBhAAAQGU0MTYifQoKAgDgFgVcAXwAADg1MjUifQoKAgDgFl8rIIQAAEBlNjM2In0KCgIA4BYFXAGE\
    AABAZTc0OSJ9CgoCAOAWBVwBhAAAQGU4NjQifQoKAgDgFgVcAYQAAEBlOTgxIn0KCgIA4BYFXAGUAABIZTExMDAifQoKAgBOhCgKuAJ8AAA4MTIxIn0KCgIA\
    IAoABiABAAD62gmV";
/// Where each event ends in [`BROTLI`] and [`ZSTD`].
const BROTLI_ENDS: [usize; 12] = [61, 80, 102, 124, 147, 169, 185, 201, 217, 233, 250, 265];
const ZSTD_ENDS: [usize; 12] = [67, 84, 102, 120, 139, 157, 176, 195, 214, 233, 254, 272];

/// The first events of a stream.
fn events(count: usize) -> Vec<u8> {
    let mut text = String::new();
    for n in 0..count {
        let _infallible =
            write!(text, "event: tick\ndata: {{\"n\":{n},\"text\":\"the quick brown fox {}\"}}\n\n", n * n);
    }
    text.into_bytes()
}

pub(in crate::inspect) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

/// All that comes out of `data`, given in pieces and read in pieces, and whether it is complete.
fn decoded(chain: &mut Chain, data: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, Trouble> {
    let (mut all, mut out) = (Vec::new(), vec![0; room]);
    for mut piece in data.chunks(piece) {
        loop {
            let step = chain.step(piece, &mut out)?;
            all.extend_from_slice(&out[..step.made]);
            piece = &piece[step.taken..];
            if step.taken == 0 && step.made == 0 {
                break;
            }
        }
        assert!(piece.is_empty(), "all input is taken");
    }
    Ok(all)
}

fn whole(codings: &[Coding], data: &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut chain = Chain::new(codings, WINDOW);
    let all = decoded(&mut chain, data, data.len().max(1), 4096)?;
    if chain.is_complete() { Ok(all) } else { Err(Trouble::EndsEarly) }
}

#[test]
fn fields_name_codings() {
    let list = |values: &[&str]| Coding::list(values.iter().map(|value| value.as_bytes()));
    assert_eq!(list(&[]), Ok(vec![]));
    assert_eq!(list(&["identity", " , "]), Ok(vec![]));
    assert_eq!(list(&["GZip, br", "X-gzip"]), Ok(vec![Coding::Gzip, Coding::Brotli, Coding::Gzip]));
    assert_eq!(list(&["compress"]), Err(Trouble::UnknownCoding("compress".into())));
    assert_eq!(list(&["gzip,gzip,gzip,gzip,gzip"]), Err(Trouble::TooManyCodings));
}

#[test]
fn what_was_flushed_comes_out_at_once() {
    for (coding, data, ends) in [(Coding::Brotli, BROTLI, BROTLI_ENDS), (Coding::Zstd, ZSTD, ZSTD_ENDS)] {
        let data = STANDARD.decode(data).unwrap();
        let mut chain = Chain::new(&[coding], WINDOW);
        let (mut all, mut at) = (Vec::new(), 0);
        for (count, end) in ends.into_iter().enumerate() {
            all.extend(decoded(&mut chain, &data[at..end], 7, 50).unwrap());
            at = end;
            assert_eq!(all, events(count + 1), "{coding}, event {count}");
            assert!(!chain.is_complete());
        }
        assert_eq!(decoded(&mut chain, &data[at..], 1, 1).unwrap(), b"");
        assert!(chain.is_complete());
    }
}

#[test]
fn gzip_comes_out_at_once_after_a_flush() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut chain = Chain::new(&[Coding::Gzip], WINDOW);
    for event in events(20).split_inclusive(|byte| *byte == b'\n') {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
        assert_eq!(decoded(&mut chain, &std::mem::take(encoder.get_mut()), 3, 20).unwrap(), event);
    }
}

#[test]
fn deflate_may_have_a_zlib_header_or_none() {
    let text = events(100);
    assert_eq!(whole(&[Coding::Deflate], &zlib(&text)), Ok(text.clone()));
    assert_eq!(whole(&[Coding::Deflate], &deflate(&text)), Ok(text));
    assert_eq!(whole(&[Coding::Deflate], b""), Ok(vec![]));
}

#[test]
fn gzip_may_have_all_parts_of_a_header_and_several_members() {
    let text = events(3);
    let mut data = gzip(&text);
    let rest = data.split_off(10);
    data[3] = HEADER_FLAGS;
    data.extend(b"\x03\x00abcname\0comment\0\x12\x34");
    data.extend(rest);
    data.extend(gzip(b"second"));
    data.extend([0; 40]);
    assert_eq!(whole(&[Coding::Gzip], &data), Ok([&text, &b"second"[..]].concat()));
    // An extra field may be empty.
    let mut data = gzip(&text);
    let rest = data.split_off(10);
    data[3] = 4;
    data.extend([0, 0]);
    data.extend(rest);
    assert_eq!(whole(&[Coding::Gzip], &data), Ok(text));
}

/// The flags for all optional parts.
const HEADER_FLAGS: u8 = 2 | 4 | 8 | 16;

#[test]
fn stacked_codings_are_undone_from_the_last() {
    let text = events(3000);
    let data = zstd(&zlib(&gzip(&text)));
    assert_eq!(whole(&[Coding::Gzip, Coding::Deflate, Coding::Zstd], &data), Ok(text.clone()));
    let mut chain = Chain::new(&[Coding::Gzip, Coding::Deflate, Coding::Zstd], WINDOW);
    assert_eq!(decoded(&mut chain, &data, 1, 100), Ok(text));
    assert!(chain.is_complete());
}

#[test]
fn damage_is_named() {
    let text = events(100);
    let mut data = gzip(&text);
    let crc = data.len() - 8;
    data[crc] ^= 1;
    assert_eq!(whole(&[Coding::Gzip], &data), Err(Trouble::Damaged(Coding::Gzip, "its checksum is wrong")));
    assert_eq!(whole(&[Coding::Gzip], &text), Err(Trouble::Damaged(Coding::Gzip, "it has no gzip header")));
    assert_eq!(whole(&[Coding::Zstd], &text), Err(damaged("it has no zstd header")));
    assert!(matches!(whole(&[Coding::Brotli], &[0xff; 100]), Err(Trouble::Damaged(Coding::Brotli, _))));
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
        let data = match coding {
            Coding::Gzip => gzip(&text),
            Coding::Deflate => zlib(&text),
            _ => zstd(&text),
        };
        assert_eq!(whole(&[coding], &data[..data.len() - 1]), Err(Trouble::EndsEarly), "{coding}");
    }
    let brotli = STANDARD.decode(BROTLI).unwrap();
    assert_eq!(whole(&[Coding::Brotli], &brotli[..brotli.len() - 1]), Err(Trouble::EndsEarly));
}

fn damaged(why: &'static str) -> Trouble {
    Trouble::Damaged(Coding::Zstd, why)
}

#[test]
fn zstd_reaches_back_to_the_whole_window() {
    // A frame with a window of 1 MiB whose last block repeats its first bytes. Only the distance makes it hard.
    let pattern: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text = [pattern.as_slice(), &pattern].concat();
    let data = zstd(&text);
    for piece in [1000, data.len()] {
        let mut chain = Chain::new(&[Coding::Zstd], WINDOW);
        assert!(decoded(&mut chain, &data, piece, 4096).unwrap() == text);
        assert!(chain.is_complete());
        assert!(chain.memory() < 8 << 20, "{}", chain.memory());
    }
}

#[test]
fn zstd_skips_frames_without_data_and_takes_several() {
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"12345"].concat();
    let empty = [&0x184d_2a50_u32.to_le_bytes()[..], &0_u32.to_le_bytes()].concat();
    let data = [&skipped, &zstd(b"one ")[..], &empty, &zstd(b"two"), &skipped].concat();
    assert_eq!(whole(&[Coding::Zstd], &data), Ok(b"one two".to_vec()));
}

#[test]
fn windows_have_a_limit() {
    // A frame that asks for a window of 8 MiB: exponent 13.
    let data = [&MAGIC[..], &[0, 13 << 3, 1, 0, 0]].concat();
    assert_eq!(whole(&[Coding::Zstd], &data), Err(Trouble::TooMuchMemory(Coding::Zstd)));
    // One that is a single segment of 2^60 bytes.
    let data = [&MAGIC[..], &[0xe0], &(1_u64 << 60).to_le_bytes()[..], &[1, 0, 0]].concat();
    assert_eq!(whole(&[Coding::Zstd], &data), Err(Trouble::TooMuchMemory(Coding::Zstd)));
    // The decoder's memory stays within the limit, whatever its data.
    let data = STANDARD.decode(BROTLI).unwrap();
    let mut chain = Chain::new(&[Coding::Brotli], 16);
    assert!(decoded(&mut chain, &data, 10, 10).is_ok());
    assert!(chain.memory() < 2 << 20);
}

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

#[test]
fn growth_has_a_limit() {
    let mut growth = Growth::of_stream();
    assert_eq!(growth.add(100, 1 << 20), Ok(()));
    assert_eq!(growth.add(0, 20_000), Ok(()));
    assert_eq!(growth.add(0, 1), Err(Trouble::Expands));
    // A chain counts what its first stage makes, even if little of it comes out at the end.
    let bomb = gzip(&gzip(&gzip(&vec![0; 64 << 20])));
    let mut chain = Chain::new(&[Coding::Gzip, Coding::Gzip, Coding::Gzip], WINDOW);
    let (mut growth, mut input, mut out) = (Growth::of_stream(), bomb.as_slice(), vec![0; 4096]);
    let ends = loop {
        let step = chain.step(input, &mut out).unwrap();
        input = &input[step.taken..];
        if let Err(trouble) = growth.add(step.taken, step.work) {
            break trouble;
        }
        assert!(step.taken > 0 || step.made > 0);
    };
    assert_eq!(ends, Trouble::Expands);
}

proptest! {
    /// Data comes out as it went in, however it is cut.
    #[test]
    fn data_comes_out_as_it_went_in(
        data in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 0..3000),
        piece in 1..700_usize,
        room in 1..5000_usize,
    ) {
        for (codings, data_in) in [
            (vec![Coding::Gzip], gzip(&data)),
            (vec![Coding::Deflate], zlib(&data)),
            (vec![Coding::Deflate], deflate(&data)),
            (vec![Coding::Zstd], zstd(&data)),
            (vec![Coding::Zstd, Coding::Gzip], gzip(&zstd(&data))),
        ] {
            let mut chain = Chain::new(&codings, WINDOW);
            prop_assert_eq!(&decoded(&mut chain, &data_in, piece, room).unwrap(), &data);
            prop_assert!(chain.is_complete());
        }
    }

    /// Damaged data ends in an error or in other data, never in a panic.
    #[test]
    fn damaged_data_does_no_harm(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        room in 1..5000_usize,
    ) {
        let text = events(12);
        let samples = [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Brotli, STANDARD.decode(BROTLI).unwrap()),
            (Coding::Zstd, STANDARD.decode(ZSTD).unwrap()),
            (Coding::Zstd, zstd(&text)),
        ];
        for (coding, mut data) in samples {
            for (at, byte) in &flips {
                *at.get_mut(&mut data) = *byte;
            }
            let piece = cut.index(data.len()) + 1;
            let mut chain = Chain::new(&[coding], 1 << 20);
            let (mut out, mut steps) = (vec![0; room], 0);
            for mut piece in data.chunks(piece) {
                while let Ok(step) = chain.step(piece, &mut out) {
                    piece = &piece[step.taken..];
                    steps += 1;
                    if step.taken == 0 && step.made == 0 || steps > 10_000 {
                        break;
                    }
                }
            }
            prop_assert!(chain.memory() < 8 << 20);
        }
    }
}
