use proptest::prelude::*;

use super::super::codings::tests::gzip;
use super::*;

fn shown(bytes: &[u8], content_type: &str) -> Shown {
    body(bytes, content_type.as_bytes(), [], true, BodyLimits::default())
}

fn coded(bytes: &[u8], content_type: &str, encoding: &str) -> Shown {
    body(bytes, content_type.as_bytes(), [encoding.as_bytes()], true, BodyLimits::default())
}

/// A text as it is shown, and its language.
fn text_of(shown: &Shown) -> (&str, Language) {
    match &shown.content {
        Content::Text { text, language, .. } => (text, *language),
        content => panic!("{content:?}"),
    }
}

#[test]
fn types_have_their_ways() {
    assert_eq!(shown(b"", "text/html").content, Content::Empty);
    assert_eq!(text_of(&shown(b"<p>&amp;</p>", "text/html; charset=utf-8")), ("<p>&amp;</p>", Language::Html));
    assert_eq!(text_of(&shown(b"<svg/>", "image/svg+xml")), ("<svg/>", Language::Xml));
    assert_eq!(text_of(&shown(b"a{}", "text/css")), ("a{}", Language::Css));
    assert_eq!(text_of(&shown(b"{\"a\":1}", "application/vnd.x+json")), ("{\n  \"a\": 1\n}", Language::Json));
    assert_eq!(text_of(&shown(b"[1]", "")), ("[\n  1\n]", Language::Json));
    assert_eq!(text_of(&shown(b"{not json}", "application/json")), ("{not json}", Language::Json));
    assert!(matches!(shown(b"{not json}", "application/json").content, Content::Text { is_laid_out: false, .. }));
    assert_eq!(text_of(&shown(b"na\xefve", "text/plain; charset=iso-8859-1")), ("naïve", Language::Plain));
    assert_eq!(text_of(&shown(b"\xff\xfea\0", "text/plain")), ("a", Language::Plain));
    assert!(matches!(
        &shown(b"\x89PNG\r\n\x1a\n\0\0", "image/png").content,
        Content::Image { media_type: "image/png", .. }
    ));
    assert!(matches!(&shown(b"\x89PNG\r\n\x1a\n\0\0", "text/html").content, Content::Binary { .. }));
    let Content::Form(pairs) = shown(b"a=1&b=%C3%A9+x&a", "application/x-www-form-urlencoded").content else {
        panic!()
    };
    assert_eq!(
        pairs.iter().map(|it| (&*it.name, &*it.value)).collect::<Vec<_>>(),
        [("a", "1"), ("b", "é x"), ("a", "")]
    );

    let unknown = shown("naïve".as_bytes(), "text/plain; charset=klingon");
    assert_eq!(text_of(&unknown).0, "naïve");
    assert_eq!(unknown.trouble, Some(Trouble::UnknownCharset("klingon".into())));
}

#[test]
fn codings_are_undone() {
    let whole = coded(&gzip(b"{\"a\":1}"), "application/json", "gzip");
    assert_eq!(
        (text_of(&whole).0, whole.size, whole.is_truncated, &whole.trouble),
        ("{\n  \"a\": 1\n}", 7, false, &None)
    );
    let twice = coded(&gzip(&gzip(b"text")), "text/plain", "gzip, x-gzip");
    assert_eq!(text_of(&twice).0, "text");
    // The answer to HEAD.
    assert_eq!(coded(b"", "text/plain", "br").content, Content::Empty);

    let data = gzip(&b"some text, ".repeat(10_000));
    let cut = coded(&data[..data.len() / 2], "text/plain", "gzip");
    assert_eq!((cut.is_truncated, &cut.trouble), (true, &Some(Trouble::EndsEarly)));
    assert!(text_of(&cut).0.starts_with("some text, some"));
    // If the rest was not captured, the data is not at fault.
    let cut = body(&data[..data.len() / 2], b"text/plain", [&b"gzip"[..]], false, BodyLimits::default());
    assert_eq!((cut.is_truncated, &cut.trouble), (true, &None));

    let other = coded(b"text", "text/plain", "gzip");
    assert!(matches!(other.content, Content::Binary { .. }));
    assert_eq!(other.trouble, Some(Trouble::Damaged(Coding::Gzip, "it has no gzip header")));
    let unknown = coded(b"text", "text/plain", "aes128gcm");
    assert!(matches!(unknown.content, Content::Binary { .. }));
    assert_eq!(unknown.trouble.unwrap().to_string(), "the coding \"aes128gcm\" is not supported");
}

#[test]
fn output_has_a_limit() {
    let limits = BodyLimits { output: 1000, ..BodyLimits::default() };
    let bomb = gzip(&vec![b'x'; 100 << 20]);
    let cut = body(&bomb, b"text/plain", [&b"gzip"[..]], true, limits);
    assert_eq!((text_of(&cut).0.len(), cut.is_truncated, &cut.trouble), (1000, true, &None));
    let cut = body(&[b'x'; 5000], b"text/plain", [], true, limits);
    assert_eq!((text_of(&cut).0.len(), cut.is_truncated), (1000, true));
    let exact = body(&gzip(&[b'x'; 1000]), b"text/plain", [&b"gzip"[..]], true, limits);
    assert_eq!(text_of(&exact).0.len(), 1000);
    // A bomb within a bomb is found out.
    let twice = coded(&gzip(&gzip(&vec![0; 500 << 20])), "text/plain", "gzip, gzip");
    assert_eq!(twice.size, 8 << 20);
    let rest = body(
        &gzip(&gzip(&gzip(&vec![0; 64 << 20]))),
        b"text/plain",
        [&b"gzip,gzip,gzip"[..]],
        true,
        BodyLimits::default(),
    );
    assert!(rest.size <= 16 << 20 && rest.is_truncated);
}

#[test]
fn a_truncated_image_is_dumped() {
    let image = body(b"\x89PNG\r\n\x1a\n\0\0", b"image/png", [], false, BodyLimits::default());
    assert!(matches!(image.content, Content::Binary { .. }));
}

#[test]
fn parts_are_shown_as_bodies() {
    let form = b"--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nme\r\n\
        --b  \r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.json\"\r\nContent-Type: application/json\r\n\r\n[1]\r\n\
        --b\r\n\r\nno head\r\n--b--\r\nepilogue";
    let Content::Multipart(parts) = shown(form, "multipart/form-data; boundary=b").content else { panic!() };
    let names: Vec<_> = parts.iter().map(|part| (part.name.as_deref(), part.file_name.as_deref())).collect();
    assert_eq!(names, [(Some("user"), None), (Some("file"), Some("a.json")), (None, None)]);
    assert_eq!(text_of(&parts[0].shown), ("me", Language::Plain));
    assert_eq!(text_of(&parts[1].shown), ("[\n  1\n]", Language::Json));
    assert_eq!(text_of(&parts[2].shown).0, "no head");
    assert_eq!(parts[1].fields.len(), 2);
    // Without its end it is text.
    assert_eq!(text_of(&shown(&form[..100], "multipart/form-data; boundary=b")).1, Language::Plain);
    assert_eq!(text_of(&shown(form, "multipart/form-data; boundary=c")).1, Language::Plain);
    assert_eq!(text_of(&shown(form, "multipart/form-data")).1, Language::Plain);
}

#[test]
fn parts_are_counted_and_not_nested_for_long() {
    let part = b"--b\r\n\r\nx\r\n".repeat(500);
    let many = shown(&[&part[..], b"--b--"].concat(), "multipart/mixed; boundary=b");
    let Content::Multipart(parts) = &many.content else { panic!() };
    assert_eq!((parts.len(), many.is_truncated), (200, true));

    let mut nested = b"--x9\r\n\r\ndeep\r\n--x9--".to_vec();
    for level in (0..9).rev() {
        let head = format!("--x{level}\r\nContent-Type: multipart/mixed; boundary=x{}\r\n\r\n", level + 1);
        nested = [head.as_bytes(), &nested, format!("\r\n--x{level}--").as_bytes()].concat();
    }
    let mut shown = shown(&nested, "multipart/mixed; boundary=x0");
    let mut depth = 0;
    while let Content::Multipart(mut parts) = shown.content {
        shown = parts.remove(0).shown;
        depth += 1;
    }
    assert_eq!(depth, 2);
    assert_eq!(text_of(&shown).1, Language::Plain);
}

proptest! {
    /// Any body can be shown, under any type, whole or not.
    #[test]
    fn any_body_can_be_shown(
        parts in prop::collection::vec(
            prop_oneof![
                Just(b"--b\r\n".to_vec()), Just(b"--b--".to_vec()), Just(b"\r\n".to_vec()), Just(b"\r\n\r\n".to_vec()),
                Just(b"Content-Type: multipart/x; boundary=b".to_vec()), Just(b"a=b&".to_vec()), Just(b"{\"a\":[".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20),
            ],
            0..30,
        ),
        content_type in prop::sample::select(vec![
            "", "multipart/form-data; boundary=b", "application/json", "application/x-www-form-urlencoded", "image/png",
            "text/plain; charset=utf-16", "text/plain; charset=latin1",
        ]),
        encoding in prop::sample::select(vec!["", "gzip", "br", "zstd", "deflate"]),
        is_whole: bool,
    ) {
        let bytes = parts.concat();
        let shown = body(&bytes, content_type.as_bytes(), [encoding.as_bytes()], is_whole, BodyLimits::default());
        prop_assert!(is_whole || shown.is_truncated);
        if encoding.is_empty() {
            prop_assert_eq!(shown.size, bytes.len() as u64);
        }
    }
}
