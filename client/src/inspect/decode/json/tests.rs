use proptest::prelude::*;

use super::*;

#[test]
fn json_is_laid_out_and_stays_as_it_is() {
    let text = r#" {"b":1.0,"a":[1e400,-0,12345678901234567890.10,true,null],"a":{},"e":[ ],"s":"\u00e9\/é\\\"","o":{"x":false}} "#;
    let expected = r#"{
  "b": 1.0,
  "a": [
    1e400,
    -0,
    12345678901234567890.10,
    true,
    null
  ],
  "a": {},
  "e": [],
  "s": "\u00e9\/é\\\"",
  "o": {
    "x": false
  }
}"#;
    assert_eq!(pretty(text, true).as_deref(), Some(expected));
    assert_eq!(pretty(expected, true).as_deref(), Some(expected));
    for scalar in ["1", "\"x\"", "null", "-1.5e+3"] {
        assert_eq!(pretty(scalar, true).as_deref(), Some(scalar));
    }
    assert_eq!(pretty("\u{feff}[1]", true).as_deref(), Some("[\n  1\n]"));
}

#[test]
fn other_text_is_not_json() {
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "[1 2]",
        "01",
        "1.",
        ".5",
        "1e",
        "+1",
        "-",
        "tru",
        "truex",
        "nul",
        "\"a",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "[1]]",
        "{]",
        "[}",
        "1 2",
        "'a'",
        "NaN",
        "// c\n1",
        "{\"a\":}",
        "[,1]",
    ] {
        assert_eq!(pretty(text, true), None, "{text:?}");
    }
}

#[test]
fn what_was_cut_off_is_laid_out_up_to_there() {
    let text = r#"{"a":[1,{"b":"c\u00e9"}],"t":true,"n":-1.5}"#;
    for cut in 0..text.len() {
        let layout = pretty(&text[..cut], false).unwrap_or_else(|| panic!("{}", &text[..cut]));
        let packed: String = layout.split_whitespace().collect();
        assert_eq!(packed, &text[..cut]);
    }
    assert_eq!(pretty("[1,x", false), None);
}

#[test]
fn deep_and_wide_text_has_a_limit() {
    assert!(pretty(&format!("{}1{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST)), true).is_none());
    assert!(pretty(&"[".repeat(1_000_000), false).is_none());
    let deep = format!("{}{}", "[".repeat(150), "1,".repeat(100_000));
    assert!(pretty(&deep, false).is_none());
    assert!(pretty(&format!("{}1{}", "[".repeat(20), "]".repeat(20)), true).is_some());
}

proptest! {
    /// The layout means the same as the text, and nothing else counts as JSON.
    #[test]
    fn the_layout_means_the_same(text in "[\\[\\]{}:, \"a1\\\\e.-]{0,24}|(true|\\[|\\]|1|\"a\"|,|:|\\{|\\}){0,14}") {
        let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let layout = pretty(&text, true);
        prop_assert_eq!(layout.is_some(), value.is_some(), "{}", text);
        if let Some(layout) = layout {
            prop_assert_eq!(serde_json::from_str(&layout).ok(), value);
        }
    }

    /// Any text can be given, cut anywhere.
    #[test]
    fn any_text_can_be_given(text in "\\PC*", is_whole: bool) {
        let _layout = pretty(&text, is_whole);
    }
}
