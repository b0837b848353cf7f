use std::collections::BTreeSet;

use super::*;
use crate::admission::{KeyLimits, Rate};

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse(text, "cokd.toml") {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_example_lacks_only_a_key_and_shows_the_defaults() {
    let example = include_str!("../../cokd.example.toml");
    let [mistake] = &mistakes(example)[..] else { panic!("{:?}", mistakes(example)) };
    assert!(
        mistake.ends_with("got the example's placeholder; make a key: cokd key create --for-config --name NAME"),
        "{mistake}"
    );
    let config = Config::parse(&example.replace(PLACEHOLDER, &"1".repeat(64)), "cokd.example.toml").unwrap();
    assert_eq!(config.tunnels.startup, tunnels::Startup::default());
    assert_eq!(config.tunnels.live, tunnels::LiveConfig::default());
    assert_eq!(config.admission.startup, admission::Startup::default());
    let (live, default) = (config.admission.live, admission::Live::default());
    assert_eq!(live.max_connections_per_address, default.max_connections_per_address);
    assert_eq!((live.rates, live.proxy_protocol), (default.rates, default.proxy_protocol));
    assert_eq!((config.edge, config.drain), (edge::Config::default(), drain::Config::default()));
    assert_eq!(config.listen.live, listen::Live::default());
    assert_eq!(live.keys.len(), 1);
}

/// The manual page is made from the example.
#[test]
fn the_example_has_every_key_and_no_other() {
    let mut known = BTreeSet::new();
    // Which keys are asked for depends on these.
    let mut files: Vec<String> = ["embedded", "exec", "httpreq", "rfc2136", "cloudflare"]
        .map(|provider| format!("[tls]\nmode = \"acme\"\n[acme.dns]\nprovider = {provider:?}\n[[keys]]\n"))
        .into();
    files.extend(["files", "self-signed"].map(|mode| format!("[tls]\nmode = {mode:?}\n")));
    for text in &files {
        let reader = Reader::new(text, "f");
        let _mistakes = Config::read(&reader);
        known.extend(reader.known().into_iter().map(|key| key.replace("[0]", "")));
    }
    // A key of one section is a section, if others begin with its name.
    let all = known.clone();
    known.retain(|key| !all.iter().any(|other| other.starts_with(&format!("{key}."))));
    let documented: BTreeSet<String> = crate::cli::documented_keys().into_iter().collect();
    // Providers of the feature cloud-dns have them.
    let optional = ["acme.dns.token_file", "acme.dns.id"].map(str::to_owned);
    let documented: BTreeSet<_> = documented.into_iter().filter(|key| !optional.contains(key)).collect();
    known.retain(|key| !optional.contains(key));
    assert_eq!(documented, known);
}

#[test]
fn defaults_stand_where_nothing_is_said() {
    let config = Config::parse("domain = \"Tunnel.Example.com\"\n[tls]\nmode = \"self-signed\"\n", "f").unwrap();
    assert_eq!(config.startup.domain.as_str(), "tunnel.example.com");
    assert_eq!(config.startup.state_dir, PathBuf::from("/var/lib/cokd"));
    assert_eq!(config.listen.startup.addresses.https, ["[::]:443".parse().unwrap()]);
    assert!(
        matches!(config.certificates.source, certs::Tls::SelfSigned) && config.listen.startup.addresses.dns.is_empty()
    );

    let config = Config::parse("domain = \"tunnel.example.com\"\n", "f").unwrap();
    assert_eq!(config.listen.startup.addresses.dns, ["[::]:53".parse().unwrap()]);
    let certs::Tls::Acme(acme) = config.certificates.source else { panic!("{:?}", config.certificates.source) };
    assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
    let certs::Dns::Embedded(zone) = acme.dns else { panic!("{:?}", acme.dns) };
    assert_eq!(zone.apex(), "_acme-challenge.tunnel.example.com.");
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
mode = "acne"

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
            "cokd.toml:3: colour: unknown key; known here: domain, state_dir, listen, tls, acme, keys, limits, transport, rates, proxies, http, admin, access_log, metrics, names",
            "cokd.toml:6: listen.https: expected an address such as \"[::]:443\", got \"here\"",
            "cokd.toml:7: listen.htpp: unknown key; did you mean \"http\"?",
            "cokd.toml:10: tls.mode: expected \"acme\", \"files\" or \"self-signed\", got \"acne\"",
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

/// The mistakes in a valid configuration with these lines added.
fn mistakes_with(lines: &str) -> Vec<String> {
    mistakes(&format!("domain = \"a.example\"\ntls.mode = \"self-signed\"\n{lines}\n"))
}

const KEY: &str =
    "[[keys]]\nname = \"a\"\nsecret_sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\"\n";

#[test]
fn each_wrong_value_gets_one_line() {
    for (lines, expected) in [
        ("[limits]\nmax_held = -1", "4: limits.max_held: expected a whole number from 0 to 100000, got -1"),
        ("[limits]\nmax_exchanges = 0", "4: limits.max_exchanges: expected a whole number from 1 to 100000, got 0"),
        ("[limits]\nmax_held = 0xfffff", "4: limits.max_held: expected a whole number from 0 to 100000, got 0xfffff"),
        (
            "[limits]\nmax_held = \"a\\nb\"",
            "4: limits.max_held: expected a whole number from 0 to 100000, got \"a\\nb\"",
        ),
        (
            "[limits]\nreconnect_grace = 10",
            "4: limits.reconnect_grace: expected a duration such as \"10s\", from 0s to 5m, got 10",
        ),
        (
            "[limits]\ninitial_window = \"+64KiB\"",
            "4: limits.initial_window: expected bytes, such as 65536 or \"64KiB\", from 16384 to 8388608, got \"+64KiB\"",
        ),
        ("limits = []", "3: limits: expected a section [limits], got an array"),
        ("keys = 3", "3: keys: expected sections [[keys]], got 3"),
        ("doman = 1", "3: doman: unknown key; did you mean \"domain\"?"),
        ("[listen]\nhttps = []", "4: listen.https: expected at least one address"),
        (
            "[listen]\nhttp = \"[::]:80\"",
            "4: listen.http: expected an array of strings, each an address such as \"[::]:443\", got \"[::]:80\"",
        ),
        ("[listen]\nadmin = \"9180\"", "4: listen.admin: expected an address such as \"[::]:443\", got \"9180\""),
        (
            "[listen]\ndns = [\"[::]:53\"]",
            "4: listen.dns: is used with [tls] mode = \"acme\" and [acme.dns] provider = \"embedded\" only",
        ),
        ("[acme.dns]\nprovider = \"embedded\"", "3: acme: is not used with mode = \"self-signed\""),
        (
            "[proxies]\ntrusted = [\"10.0.0.0/40\"]",
            "4: proxies.trusted: expected a network such as \"10.0.0.0/8\", got \"10.0.0.0/40\"",
        ),
        (
            &format!("{KEY}subdomains = []"),
            "6: keys[0].subdomains: expected at least one name or pattern; leave this out to allow any",
        ),
        (
            &format!("{KEY}expires = \"soon\""),
            "6: keys[0].expires: expected a date such as \"2027-01-31\" or \"2027-01-31T00:00:00Z\" (UTC), got \"soon\"",
        ),
        (&format!("{KEY}max_tunels = 1"), "6: keys[0].max_tunels: unknown key; did you mean \"max_tunnels\"?"),
        (
            "[[keys]]\nname = \"a\"",
            "3: keys[0].secret_sha256: expected the key's SHA-256 in 64 hexadecimal digits, but the key is missing",
        ),
    ] {
        assert_eq!(mistakes_with(lines), [format!("cokd.toml:{expected}")], "{lines}");
    }
    let long = mistakes_with(&format!("state_dir = [\"\"]\n[limits]\nmax_held = \"{}\"", "x".repeat(500)));
    assert!(long.len() == 2 && long[1].len() < 200, "{long:?}");
}

#[test]
fn keys_have_unique_names_and_secrets() {
    assert_eq!(
        mistakes_with(&format!("{KEY}{KEY}")),
        [
            "cokd.toml:7: keys[1].name: another key has this name",
            "cokd.toml:8: keys[1].secret_sha256: the key \"a\" has the same secret",
        ]
    );
    let secret = "cok_not-a-digest-but-the-key-itself-put-here-by-some-mistake-hmm";
    assert_eq!(
        mistakes_with(&KEY.replace(&"1".repeat(64), secret)),
        [
            "cokd.toml:5: keys[0].secret_sha256: expected the key's SHA-256 in 64 hexadecimal digits, got other characters among them"
        ]
    );
}

#[test]
fn numbers_and_dates_are_read_as_toml_means_them() {
    let parse = |lines: &str| {
        Config::parse(&format!("domain = \"a.example\"\ntls.mode = \"self-signed\"\n{lines}\n"), "f").unwrap()
    };
    for (written, read) in [("16", 16), ("0x10", 16), ("0o20", 16), ("0b1_0000", 16), ("1_000", 1000)] {
        assert_eq!(parse(&format!("limits.max_held = {written}")).tunnels.live.max_held, read, "{written}");
    }
    for (written, read) in [("65536", 65536), ("\"64KiB\"", 65536), ("\"64 KiB\"", 65536), ("\"1MiB\"", 1 << 20)] {
        assert_eq!(parse(&format!("limits.initial_window = {written}")).tunnels.live.initial_window, read, "{written}");
    }
    let midnight = humantime::parse_rfc3339("2027-01-31T00:00:00Z").ok();
    for written in ["\"2027-01-31\"", "2027-01-31", "\"2027-01-31T00:00:00Z\"", "2027-01-31T00:00:00Z"] {
        assert_eq!(parse(&format!("{KEY}expires = {written}")).admission.live.keys[0].expires, midnight, "{written}");
    }
}

#[test]
fn both_missing_files_are_named() {
    let tls = |lines: &str| mistakes(&format!("domain = \"a.example\"\n\n[tls]\n{lines}\n"));
    let missing = "expected a path to a PEM file, since mode = \"files\"";
    assert_eq!(
        tls("mode = \"files\""),
        [format!("cokd.toml:3: tls.cert: {missing}"), format!("cokd.toml:3: tls.key: {missing}")]
    );
    assert_eq!(tls("mode = \"files\"\ncert = 1\nkey = 2").len(), 2);
    assert_eq!(
        tls("mode = \"self-signed\"\ncert = \"/none\"\nkey = \"/none\""),
        [
            "cokd.toml:5: tls.cert: is not used with mode = \"self-signed\"",
            "cokd.toml:6: tls.key: is not used with mode = \"self-signed\"",
        ]
    );
}

#[test]
fn acme_is_checked_as_far_as_a_file_can_be() {
    let mistakes_with = |lines: &str| mistakes(&format!("domain = \"a.example\"\n{lines}\n"));
    for fine in [
        "[acme]\ncontact = [\"mailto:ops@example.com\"]\neab_key_id = \"a\"\neab_hmac_key_file = \"credential\"",
        "[acme.dns]\nprovider = \"exec\"\nprogram = \"/bin/sh\"",
        "[acme.dns]\nprovider = \"httpreq\"\nurl = \"http://127.0.0.1:8053/hook\"",
        "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"ns1.example.com\"\ntsig_name = \"k\"\ntsig_secret_file = \"k\"",
        "[acme.dns]\nname_server = \"ns1.example.com\"\nchallenge_name = \"x.acme.example.net\"",
        "[acme.dns]\nwhole_domain = true\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nissuers = [\"letsencrypt.org\"]",
    ] {
        assert_eq!(mistakes_with(fine), [""; 0], "{fine}");
    }
    for (lines, wrong) in [
        (
            "[acme]\ndirectory = \"http://acme.example\"",
            "3: acme.directory: expected a URL such as \"https://acme.example.com/directory\", got \"http://acme.example\"",
        ),
        (
            "[acme]\ncontact = [\"ops\"]",
            "3: acme.contact: expected an address such as \"mailto:ops@example.com\", got \"ops\"",
        ),
        ("[acme]\nca_file = \"/none\"", "3: acme.ca_file: there is no file /none"),
        ("[acme]\neab_key_id = \"a\"", "3: acme.eab_key_id: needs eab_hmac_key_file beside it"),
        ("[acme]\neab_hmac_key_file = \"a\"", "3: acme.eab_hmac_key_file: needs eab_key_id beside it"),
        (
            "[acme]\neab_key_id = \"a\"\neab_hmac_key_file = \"/none\"",
            "4: acme.eab_hmac_key_file: there is no file /none",
        ),
        ("[acme.dns]\nprovider = \"exec\"", "2: acme.dns.program: expected a path, but the key is missing"),
        ("[acme.dns]\nprovider = \"exec\"\nprogram = \"/none\"", "4: acme.dns.program: there is no file /none"),
        (
            "[acme.dns]\nprovider = \"httpreq\"\nurl = \"hook\"",
            "4: acme.dns.url: expected a URL such as \"https://hook.example.com\", got \"hook\"",
        ),
        (
            "[acme.dns]\nprovider = \"httpreq\"\nurl = \"https://hook.example/?a=b\"",
            "4: acme.dns.url: expected a URL such as \"https://hook.example.com\", got \"https://hook.example/?a=b\"",
        ),
        (
            "[acme.dns]\nprovider = \"httpreq\"\nurl = \"https://user:secret@hook.example\"",
            "4: acme.dns.url: expected a URL such as \"https://hook.example.com\", got one with a user's name in it, which belongs into username and password_file",
        ),
        (
            "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"host:x\"",
            "4: acme.dns.server: expected a name server such as \"192.0.2.53\" or \"ns1.example.com:53\", got \"host:x\"",
        ),
        (
            "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"a\"\nzone = \"b..c\"",
            "5: acme.dns.zone: expected a zone such as \"example.com\", got \"b..c\"",
        ),
        (
            "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"a\"\ntsig_name = \"k\"\ntsig_secret_file = \"k\"\ntsig_algorithm = \"hmac-md5\"",
            "7: acme.dns.tsig_algorithm: expected \"hmac-sha256\", \"hmac-sha384\" or \"hmac-sha512\", got \"hmac-md5\"",
        ),
        (
            "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"a\"\ntsig_name = \"k\"",
            "5: acme.dns.tsig_name: needs tsig_secret_file beside it",
        ),
        (
            "[acme.dns]\nserver = \"a\"",
            "3: acme.dns.server: unknown key; known here: provider, name_server, challenge_name, whole_domain, addresses, issuers",
        ),
        (
            "[acme.dns]\nwhole_domain = true",
            "2: acme.dns.addresses: expected this machine's public addresses, since whole_domain = true",
        ),
        ("[acme.dns]\nissuers = [\"a.example\"]", "3: acme.dns.issuers: is used with whole_domain = true only"),
        ("[acme.dns]\nwhole_domain = 1", "3: acme.dns.whole_domain: expected true or false, got 1"),
        ("[listen]\ndns = []", "3: listen.dns: expected at least one address"),
        ("[tls]\ncert = \"/bin/sh\"", "3: tls.cert: is not used with mode = \"acme\""),
    ] {
        assert_eq!(mistakes_with(lines), [format!("cokd.toml:{wrong}")], "{lines}");
    }
}

#[test]
fn providers_that_were_not_built_in_are_named() {
    let mistakes_with = |lines: &str| mistakes(&format!("domain = \"a.example\"\n[acme.dns]\nprovider = {lines}\n"));
    let start = "cokd.toml:3: acme.dns.provider: expected \"embedded\", \"exec\", \"httpreq\" or \"rfc2136\", ";
    let [wrong] = &mistakes_with("\"nonsense\"\ntoken = 1")[..] else { panic!() };
    assert!(wrong.starts_with(start) && wrong.contains("got \"nonsense\""), "{wrong}");
    if cfg!(feature = "cloud-dns") {
        assert_eq!(mistakes_with("\"cloudflare\"\ntoken_file = \"credential\""), [""; 0]);
        let wrong = "cokd.toml:2: acme.dns.token_file: expected a path to the file with the provider's token";
        assert_eq!(mistakes_with("\"cloudflare\""), [wrong]);
    } else {
        assert!(mistakes_with("\"cloudflare\"\ntoken_file = \"credential\"")[0].ends_with("--features cloud-dns"));
    }
}

#[test]
fn only_temporary_errors_may_pass() {
    use std::io::{Error, ErrorKind};
    let read = |error| ConfigError::Read { path: "cokd.toml".into(), error };
    for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::IsADirectory, ErrorKind::InvalidData] {
        assert!(!read(kind.into()).may_pass(), "{kind}");
    }
    // EIO and EMFILE.
    for code in [5, 24] {
        assert!(read(Error::from_raw_os_error(code)).may_pass(), "{code}");
    }
    assert!(!ConfigError::Mistakes(Vec::new()).may_pass());
}

#[test]
fn one_character_is_no_plural() {
    let wrong = mistakes("domain = \"a.example\"\n[[keys]]\nname = \"a\"\nsecret_sha256 = \"1\"\n").join("\n");
    assert!(wrong.contains("hexadecimal digits, got 1 character\n") || wrong.ends_with("got 1 character"), "{wrong}");
}

#[test]
fn a_key_has_limits_and_rates() {
    let limits = |text: &str| {
        let config = Config::parse(&format!("domain = \"a.example\"\n{KEY}{text}\n"), "f").unwrap();
        config.admission.live.keys[0].limits
    };
    assert_eq!(limits(""), KeyLimits::default());
    let all = "max_sessions = 2\nmax_exchanges = 3\nrequests = \"4/s burst 5\"\nbytes = \"1KiB/s\"";
    let (requests, bytes) = (Some(Rate::new(4, 5)), Some(Rate::new(1024, 1024)));
    let wanted = KeyLimits { tunnels: 10, sessions: 2, exchanges: Some(3), requests, bytes };
    assert_eq!(limits(all), wanted);
    let wrong = mistakes(&format!("{KEY}bytes = \"1TiB/s\"\nrequests = \"1MiB/s\"\nmax_exchanges = 0\n")).join("\n");
    assert!(wrong.contains("keys[0].bytes: expected a rate such as \"1MiB/s\""), "{wrong}");
    assert!(wrong.contains("keys[0].requests: expected a rate such as \"10/s\""), "{wrong}");
    assert!(wrong.contains("keys[0].max_exchanges: expected a whole number from 1 to 1000000, got 0"), "{wrong}");
}
