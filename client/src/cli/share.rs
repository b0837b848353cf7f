//! `cok-client share`: prints a share link, which needs neither the daemon nor a running client, or revokes one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use cok_host::say;
use cok_proto::rules::PathPrefix;
use cok_proto::share::{Grant, LinkId, MAX_LIFETIME, PARAMETER};

use super::access_flags::load_secret;
use super::control::apply_revocations;
use super::failure::Usage;
use super::plan::{env, state_dir};
use super::program::called;
use super::url::PublicUrl;
use crate::config::FileConfig;
use crate::name::check_subdomain;
use crate::revoked_links;
use crate::server::Server;
use crate::times::parse_interval;

/// Which link to print.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ShareArgs {
    /// The tunnel: a [tunnels.NAME] of the configuration file, a subdomain, or a public address such as
    /// `https://demo.tunnel.example.com` [env: `COK_SUBDOMAIN`]
    #[arg(value_name = "NAME|URL")]
    tunnel: Option<String>,
    /// How long the link is valid, at most 90d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_lifetime)]
    expires: Duration,
    /// The path that the link opens, with all below it
    #[arg(long, default_value = "/")]
    path: PathPrefix,
    /// Revoke the link with this id, which was printed with it. Running clients apply it at once
    #[arg(long, value_name = "ID", conflicts_with_all = ["tunnel", "expires", "path", "server", "config"])]
    revoke: Option<LinkId>,
    /// The server, such as `https://tunnel.example.com` [env: `COK_SERVER`]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The configuration file [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the client that runs the tunnel keeps its files [default: ~/.local/state/cok]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    match parse_interval(text)? {
        time if time > MAX_LIFETIME => Err("a link is valid for 90d at most".to_owned()),
        time if time < Duration::from_secs(1) => Err("a link is valid for 1s at least".to_owned()),
        time => Ok(time),
    }
}

/// Prints the link, alone on standard output, or revokes one.
pub(super) fn run(args: &ShareArgs) -> anyhow::Result<ExitCode> {
    match args.revoke {
        Some(id) => revoke(args, id),
        None => print(args).map(|()| ExitCode::SUCCESS),
    }
}

/// Notes the revocation for clients that start later, and has the running ones apply it.
fn revoke(args: &ShareArgs, id: LinkId) -> anyhow::Result<ExitCode> {
    let state_dir = state_dir(args.state_dir.as_deref())?;
    revoked_links::add(&state_dir, id, SystemTime::now())
        .with_context(|| format!("cannot revoke the link in {}", state_dir.display()))?;
    eprintln!("the link {id} is revoked");
    apply_revocations(&state_dir)
}

fn print(args: &ShareArgs) -> anyhow::Result<()> {
    let (name, server) = place(args).map_err(Usage::of)?;
    let secret = load_secret(&state_dir(args.state_dir.as_deref())?)?;
    let end = SystemTime::now() + args.expires;
    let expires = end.duration_since(SystemTime::UNIX_EPOCH).context("this machine's clock is before 1970")?.as_secs();
    let mut id = [0; LinkId::LEN];
    getrandom::fill(&mut id)?;
    let id = LinkId::new(id);
    let token = secret.sign(&name, Grant { id, expires, path: args.path.clone() }).to_text();
    let path = encoded(args.path.as_str());
    say!("https://{name}.{}{path}?{PARAMETER}={token}", server.authority());
    let until = humantime::format_rfc3339_seconds(end);
    eprintln!("valid until {until} by the server's clock, while the tunnel runs with --share-links from this machine");
    eprintln!("`{} share --revoke {id}` ends it earlier", called());
    Ok(())
}

/// The name of the tunnel, and its server.
fn place(args: &ShareArgs) -> anyhow::Result<(String, Server)> {
    let mut file = FileConfig::load(args.config.as_deref())?;
    let named = match args.server.clone().or_else(|| env("COK_SERVER")) {
        Some(server) => Some(Server::from_str(&server)?),
        None => file.server.take(),
    };
    let word = match args.tunnel.clone().or_else(|| env("COK_SUBDOMAIN")) {
        Some(word) => word,
        None if file.tunnels.len() == 1 => file.tunnels.keys().next().cloned().unwrap_or_default(),
        None => bail!("which tunnel? name one of the configuration file, a subdomain or a public address"),
    };
    if word.contains('.') {
        let url = PublicUrl::from_str(&word)?;
        if let Some(server) = &named {
            url.check(server)?;
        }
        return Ok((url.subdomain, url.server));
    }
    let in_file = file.tunnels.get(&word).and_then(|tunnel| tunnel.subdomain.clone());
    let name = in_file.map_or_else(|| check_subdomain(&word).map_err(|why| anyhow!(why)), Ok)?;
    let server = named.context(
        "no server: name one by --server https://tunnel.example.com, COK_SERVER or `server` in the configuration file",
    )?;
    Ok((name, server))
}

/// A path as addresses carry it.
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_last_as_long_as_daemons_take_them() {
        assert_eq!(parse_lifetime("2h"), Ok(Duration::from_secs(7200)));
        for text in ["0", "0s", "91d", "soon", "1ms"] {
            assert!(parse_lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encoded("/a b/ü"), "/a%20b/%C3%BC");
    }
}
