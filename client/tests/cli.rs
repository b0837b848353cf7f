//! The program's answers to wrong usage: one line each, and the exit codes that scripts rely on.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::Path;
use std::process::{Command, Output};

const KEY: &[&str] = &["--api-key", "secret-key"];
const SERVER: &[&str] = &["--server", "https://127.0.0.1:9"];

/// Runs the client in an empty home.
fn run(arguments: &[&[&str]], environment: &[(&str, &str)], home: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cok-client"))
        .args(arguments.concat())
        .env_clear()
        .env("HOME", home)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// Expects exit code 2 and an explanation with `said` in it.
fn wrong(arguments: &[&[&str]], environment: &[(&str, &str)], said: &str) {
    let home = tempfile::tempdir().unwrap();
    let output = run(arguments, environment, home.path());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(text.contains(said), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty());
    assert!(!text.contains("secret-key") && !text.contains("panicked"));
}

#[test]
fn usage_that_cannot_work_exits_with_2() {
    wrong(&[&["3000"]], &[], "no server");
    wrong(&[&["3000"], SERVER], &[], "no API key");
    wrong(&[SERVER, KEY], &[], "nothing to forward to");
    wrong(&[&["http"], SERVER, KEY], &[], "TARGET is missing");
    wrong(&[&["tcp", "3000"], SERVER, KEY], &[], "no kind of tunnel");
    wrong(
        &[&["logni"], SERVER, KEY],
        &[],
        "there is no tunnel \"logni\": the configuration file has no tunnels; a TARGET",
    );
    wrong(&[&["3000", "-p", "3000"], SERVER, KEY], &[], "only one of them");
    wrong(&[&["ftp://x"], SERVER, KEY], &[], "scheme");
    wrong(&[&["3000", "--server", "http://x"], KEY], &[], "https://");
    wrong(&[&["3000", "-s", "a.b"], SERVER, KEY], &[], "--subdomain");
    wrong(&[&["3000", "--transport", "pigeon"], SERVER, KEY], &[], "pigeon");
    wrong(&[&["3000"], SERVER, KEY], &[("COK_TRANSPORT", "pigeon")], "COK_TRANSPORT");
    wrong(&[&["3000", "--congestion", "reno"], SERVER, KEY], &[], "expected bbr or cubic");
    wrong(&[&["3000", "--probe-interval", "0s"], SERVER, KEY], &[], "more than 0");
    wrong(&[&["3000", "--ca-file", "/nowhere"], SERVER, KEY], &[], "/nowhere");
    wrong(&[&["3000", "--api-key-file", "/nowhere"], SERVER], &[("COK_API_KEY", "secret-key")], "/nowhere");
    wrong(&[&["3000", "--config", "/nowhere"], SERVER, KEY], &[], "/nowhere");
    wrong(&[&["3000", "--host-header", "a b"], SERVER, KEY], &[], "host");
    wrong(&[&["3000", "--response-timeout", "soon"], SERVER, KEY], &[], "90s");
    wrong(&[&["--no-such-flag"]], &[], "--no-such-flag");
    wrong(&[&["start", "web", "--all"]], &[], "cannot be used with");
    wrong(&[&["start", "web"], SERVER, KEY], &[], "there is no tunnel \"web\": the configuration file has no tunnels");
    wrong(&[&["reload", "7", "--all"]], &[], "cannot be used with");
    wrong(&[&["stop", "seven"]], &[], "seven");
}

#[test]
fn a_url_names_the_tunnel_and_fits_the_server() {
    let url = &["3000", "--url", "https://demo.tunnel.example.com"];
    wrong(&[url], &[], "no API key");
    wrong(&[url, SERVER, KEY], &[], "--url https://demo.tunnel.example.com: the server is https://127.0.0.1:9");
    wrong(&[url, KEY], &[("COK_SERVER", "example.com")], "must be https://NAME.example.com");
    wrong(&[url, &["-s", "demo"], KEY], &[], "cannot be used with");
    wrong(&[&["3000", "--url", "http://demo.tunnel.example.com"]], &[], "must be https://");
    wrong(&[&["3000", "--url", "https://demo"]], &[], "no domain");
}

#[test]
fn an_empty_variable_is_none() {
    wrong(&[&["3000"], KEY], &[("COK_SERVER", "")], "no server");
    wrong(&[&["3000"], SERVER], &[("COK_API_KEY", "")], "no API key");
}

#[test]
fn every_mistake_in_the_file_has_a_line() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/cok");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("client.toml"), "srever = \"x\"\n[tunnels.web]\ntarget = true\n").unwrap();
    let output = run(&[], &[], home.path());
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(2), 2), "{text}");
    assert!(lines[0].contains("client.toml:1: srever: unknown key"), "{text}");
    assert!(lines[1].contains("client.toml:3: tunnels.web.target: expected a string or a whole number"), "{text}");

    let output = run(&[&["--log-format", "json"]], &[], home.path());
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["event"], "failed");
    }
}

#[test]
fn without_a_client_there_is_nothing_to_ask() {
    let home = tempfile::tempdir().unwrap();
    for command in ["reload", "stop"] {
        for arguments in [&[command][..], &[command, "7"], &[command, "--all"]] {
            let output = run(&[arguments], &[], home.path());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.starts_with("cok-client: ") && text.contains("no client runs"), "{text}");
        }
    }
    for (arguments, said) in [(&["status"][..], "no client runs\n"), (&["status", "--json"], "[]\n")] {
        let output = run(&[arguments], &[], home.path());
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), said.as_bytes()));
    }
}

#[test]
fn help_goes_to_standard_output() {
    let home = tempfile::tempdir().unwrap();
    let output = run(&[&["--help"]], &[], home.path());
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("TARGET"));
}
