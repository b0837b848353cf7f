//! Whom a tunnel lets in, by the flags, the environment and the file. Each rule that a flag names replaces the file's.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, anyhow, bail};
use cok_proto::Rules;
use cok_proto::rate::{Rate, Unit};
use cok_proto::rules::{Credentials, PathPrefix, parse_network};
use cok_proto::share::LinkId;
use ipnet::IpNet;

use super::plan::env;
use crate::config::FileAccess;
use crate::revoked_links;
use crate::share::ShareSecret;

/// Which visitors a tunnel lets in. Without these flags it is open to all.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Visitors")]
pub(super) struct AccessFlags {
    /// Let visitors in who name this user and password; may be repeated [env: `COK_BASIC_AUTH`]. Better there or in a file,
    /// since other users see command lines
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "basic_auth_file")]
    basic_auth: Vec<Credentials>,
    /// A file with a USER:PASSWORD on each line
    #[arg(long, value_name = "FILE")]
    basic_auth_file: Option<PathBuf>,
    /// Let visitors in who come by a share link, which the command `share` prints
    #[arg(long)]
    share_links: bool,
    /// Let in only visitors from this network, such as 192.0.2.0/24; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    allow_cidr: Vec<IpNet>,
    /// Keep visitors from this network out, also out of an allowed one; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = parse_network)]
    deny_cidr: Vec<IpNet>,
    /// Carry only requests for this path and all below it; may be repeated
    #[arg(long, value_name = "PATH")]
    allow_path: Vec<PathPrefix>,
    /// How often each visitor's address may ask, such as 10/s, or "10/s burst 100" to let 100 come at once
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    visitor_rate: Option<Rate>,
}

/// Reads a rate of requests.
fn parse_rate(text: &str) -> Result<Rate, String> {
    Rate::parse(text, Unit::Count).map_err(|example| format!("expected {example}"))
}

impl AccessFlags {
    /// The rules of a tunnel. Links are for a name, so a tunnel that lets visitors in by them must have one.
    /// Only links ask for the state directory.
    pub(super) fn rules(
        &self,
        file: &FileAccess,
        name: Option<&str>,
        state_dir: impl Fn() -> anyhow::Result<PathBuf>,
    ) -> anyhow::Result<Rules> {
        let first = |flags: &Vec<IpNet>, file: &Vec<IpNet>| if flags.is_empty() { file.clone() } else { flags.clone() };
        let paths = if self.allow_path.is_empty() { &file.allow_path } else { &self.allow_path };
        let (share, share_revoked) = match (self.share_links || file.share_links, name) {
            (false, _) => (None, Vec::new()),
            (true, None) => bail!("share links are for one name: give the tunnel one by --subdomain"),
            (true, Some(name)) => {
                let state_dir = state_dir()?;
                (Some(load_secret(&state_dir)?.key_of(name)), load_revoked(&state_dir)?)
            }
        };
        let rules = Rules {
            basic_auth: self.credentials(file)?,
            allow_cidr: first(&self.allow_cidr, &file.allow_cidr),
            deny_cidr: first(&self.deny_cidr, &file.deny_cidr),
            allow_path: paths.clone(),
            share_revoked,
            share,
            rate: self.visitor_rate.or(file.visitor_rate),
        };
        rules.check().map_err(|why| anyhow!(why))?;
        Ok(rules)
    }

    /// The users and passwords in a file.
    pub(super) fn from_file(path: &Path) -> anyhow::Result<Vec<Credentials>> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the passwords in {}", path.display()))?;
        read(&text, &path.display().to_string())
    }

    fn credentials(&self, file: &FileAccess) -> anyhow::Result<Vec<Credentials>> {
        if !self.basic_auth.is_empty() {
            return Ok(self.basic_auth.clone());
        }
        match (&self.basic_auth_file, env("COK_BASIC_AUTH"), &file.basic_auth_file) {
            (Some(path), _, _) | (None, None, Some(path)) => Self::from_file(path),
            (None, Some(text), _) => read(&text, "COK_BASIC_AUTH"),
            (None, None, None) => Ok(Vec::new()),
        }
    }
}

/// Reads one or more lines with a user and a password each. An error does not quote them.
fn read(text: &str, place: &str) -> anyhow::Result<Vec<Credentials>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let parse = |(at, line): (usize, &str)| line.parse().map_err(|why| anyhow!("{place}:{}: {why}", at + 1));
    let pairs = lines.map(parse).collect::<anyhow::Result<Vec<_>>>()?;
    // Without this, a file that was emptied by mistake would open the tunnel to all.
    if pairs.is_empty() {
        bail!("{place} has no USER:PASSWORD");
    }
    Ok(pairs)
}

/// The share links that were revoked.
pub(super) fn load_revoked(state_dir: &Path) -> anyhow::Result<Vec<LinkId>> {
    revoked_links::load(state_dir, SystemTime::now())
        .with_context(|| format!("cannot read which share links are revoked in {}", state_dir.display()))
}

/// The secret behind share links.
pub(super) fn load_secret(state_dir: &Path) -> anyhow::Result<ShareSecret> {
    ShareSecret::load(state_dir)
        .with_context(|| format!("cannot keep the key of share links in {}", state_dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_lines_and_never_quoted() {
        assert_eq!(read("me:a\n\nyou:b:c\r\n", "f").unwrap().len(), 2);
        for text in ["", "\n", "me:a\nsecret\n"] {
            let why = read(text, "f").unwrap_err().to_string();
            assert!(why.starts_with('f') && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_flag_replaces_the_same_rule_of_the_file() {
        let file = FileAccess {
            allow_cidr: vec!["10.0.0.0/8".parse().unwrap()],
            deny_cidr: vec!["10.1.0.0/16".parse().unwrap()],
            ..FileAccess::default()
        };
        let flags = AccessFlags { allow_cidr: vec!["192.0.2.0/24".parse().unwrap()], ..AccessFlags::default() };
        let nowhere = || bail!("no state directory is needed");
        let rules = flags.rules(&file, None, nowhere).unwrap();
        assert_eq!((rules.allow_cidr, rules.deny_cidr), (flags.allow_cidr, file.deny_cidr));
        let flags = AccessFlags { share_links: true, ..AccessFlags::default() };
        assert!(flags.rules(&FileAccess::default(), None, nowhere).is_err());
    }
}
