use super::*;

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, "cokd.toml") {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_example_is_valid_and_shows_the_defaults() {
    let config = Config::parse(include_str!("../../cokd.example.toml"), "cokd.example.toml").unwrap();
    let default = Limits::default();
    assert_eq!(format!("{:?}", config.limits), format!("{default:?}"));
    assert_eq!(config.keys.len(), 1);
}

#[test]
fn defaults_stand_where_nothing_is_said() {
    let config = Config::parse("domain = \"Tunnel.Example.com\"\n[tls]\nmode = \"self-signed\"\n", "f").unwrap();
    assert_eq!(config.domain.as_str(), "tunnel.example.com");
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/cokd"));
    assert_eq!(config.listen.https, ["[::]:443".parse().unwrap()]);
    assert_eq!(config.tls, Tls::SelfSigned);
}

#[test]
fn every_mistake_is_named_with_its_line_and_key() {
    let text = r#"domain = "localhost"
state_dir = 7
colour = "red"

[listen]
https = ["here"]
htpp = []

[tls]
mode = "acme"

[limits]
max_held = "many"
reconnect_grace = "10 parsecs"
initial_window = "9TiB"

[[keys]]
name = ""
secret_sha256 = "12"
subdomains = ["a.b", 3]
"#;
    assert_eq!(
        mistakes(text),
        [
            "cokd.toml:1: domain: expected a host name such as \"tunnel.example.com\", a host name has at least two labels, like \"tunnel.example.com\"",
            "cokd.toml:2: state_dir: expected a path, got 7",
            "cokd.toml:3: colour: unknown key; known here: domain, state_dir, listen, tls, acme, keys, limits, proxies",
            "cokd.toml:6: listen.https: expected an address such as \"[::]:443\", got \"here\"",
            "cokd.toml:6: listen.https: expected at least one address",
            "cokd.toml:7: listen.htpp: unknown key; did you mean \"http\"?",
            "cokd.toml:10: tls.mode: expected \"files\" or \"self-signed\", certificates by ACME are not built yet",
            "cokd.toml:13: limits.max_held: expected a whole number from 0 to 100000, got \"many\"",
            "cokd.toml:14: limits.reconnect_grace: expected a duration such as \"10s\", from 0s to 5m, got \"10 parsecs\"",
            "cokd.toml:15: limits.initial_window: expected bytes, such as 65536 or \"64KiB\", from 16384 to 8388608, got \"9TiB\"",
            "cokd.toml:18: keys[0].name: expected 1 to 64 printable characters, got \"\"",
            "cokd.toml:19: keys[0].secret_sha256: expected the key's SHA-256 in 64 hexadecimal digits, got 2 characters",
            "cokd.toml:20: keys[0].subdomains: expected a name or a pattern such as \"demo-*\", got \"a.b\"",
            "cokd.toml:20: keys[0].subdomains: expected a name or a pattern such as \"demo-*\", got 3",
        ]
    );
}

#[test]
fn syntax_errors_and_missing_keys_are_named() {
    let syntax = mistakes("domain = \n");
    assert!(syntax.len() == 1 && syntax[0].starts_with("cokd.toml:1: "), "{syntax:?}");
    assert_eq!(
        mistakes("[tls]\nmode = \"files\"\ncert = \"/nonexistent\"\n"),
        [
            "cokd.toml:1: domain: expected a host name such as \"tunnel.example.com\", but the key is missing",
            "cokd.toml:1: tls.key: expected a path to a PEM file, since mode = \"files\"",
            "cokd.toml:3: tls.cert: there is no file /nonexistent",
        ]
    );
}
