use std::path::Path;

use super::*;

/// Reads `[services.NAME]` with a `port` each, and the mistakes.
fn services(text: &str) -> (Vec<(String, Option<u16>)>, Vec<String>) {
    let reader = Reader::new(text, "f");
    let mut root = reader.root().unwrap();
    let mut services = Vec::new();
    for (name, mut section) in root.sections("services", "NAME") {
        let port = section.text("port", |text| text.parse().map_err(|_| format!("\"{text}\" is no port")));
        if !section.has("port") {
            section.mistake("port", "the key is missing");
        }
        section.finish();
        services.push((name, port));
    }
    root.finish();
    (services, reader.mistakes().iter().map(ToString::to_string).collect())
}

#[test]
fn sections_with_names_of_the_users_choice() {
    let text = "[services.web]\nport = \"80\"\n[services.\"a\\nb\"]\nport = \"81\"\n";
    let read = vec![("a\nb".to_owned(), Some(81)), ("web".to_owned(), Some(80))];
    assert_eq!(services(text), (read, Vec::new()));
    assert_eq!(services(""), (Vec::new(), Vec::new()));
}

#[test]
fn mistakes_in_such_sections_name_the_section() {
    let text = "[services]\nx = 1\n[services.web]\nport = 80\nprot = 1\n[services.\"a\\nb\"]\n[services.c]\nport = \"c\\nd\"\n";
    assert_eq!(
        services(text).1,
        [
            "f:2: services.x: expected a section [services.x], got 1",
            "f:4: services.web.port: expected a string, got 80",
            "f:5: services.web.prot: unknown key; did you mean \"port\"?",
            "f:6: services.a\\nb.port: the key is missing",
            "f:8: services.c.port: \"c; d\" is no port",
        ]
    );
    assert_eq!(services("services = []").1, ["f:1: services: expected sections [services.NAME], got an array"]);
}

#[test]
fn a_syntax_error_is_one_mistake_on_one_line() {
    let mistakes = Reader::new("a = 1\n[b\n", "f").root().unwrap_err();
    assert_eq!(mistakes.len(), 1);
    let text = mistakes[0].to_string();
    assert!(text.starts_with("f:2: ") && !text.contains('\n'), "{text}");
}

#[test]
fn a_path_may_not_be_empty() {
    let reader = Reader::new("a = \"x\"\nb = \"\"\n", "f");
    let mut root = reader.root().unwrap();
    assert_eq!(root.path("a").as_deref(), Some(Path::new("x")));
    assert_eq!(root.path("b"), None);
    assert_eq!(reader.mistakes()[0].to_string(), "f:2: b: expected a path, got nothing");
}

#[test]
fn a_whole_number_may_stand_for_its_digits() {
    let reader = Reader::new("a = 3000\nb = \"3000\"\nc = 0x10\nd = -1\ne = 1.5\nf = 7\n", "f");
    let mut root = reader.root().unwrap();
    let mut read = |key| root.text_or_whole(key, |text| Ok::<_, String>(text.to_owned()));
    assert_eq!([read("a"), read("b"), read("c")], ["3000", "3000", "16"].map(|text| Some(text.to_owned())));
    assert_eq!((read("d"), read("e"), read("none")), (None, None, None));
    assert_eq!(root.text_or_whole("f", |text| Err::<(), _>(format!("{text} is odd"))), None);
    let mistakes: Vec<_> = reader.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(
        mistakes,
        [
            "f:4: d: expected a string or a whole number, got -1",
            "f:5: e: expected a string or a whole number, got 1.5",
            "f:6: f: 7 is odd",
        ]
    );
}
