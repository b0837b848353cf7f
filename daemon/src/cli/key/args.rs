//! The arguments of `cokd key`.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use crate::admission::wire::{ByteRate, Changes, Moment, RateText, RequestRate, Setting};
use crate::admission::{MOST_SESSIONS, MOST_TUNNELS, Rate};
use crate::cli::exit::DEFAULT_CONFIG;
use crate::names::SubdomainPattern;

/// `2027-01-31`.
const DATE_LENGTH: usize = 10;

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a key and print it, once
    Create(CreateArgs),
    /// List all keys, also those of the configuration file
    List {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show what a key allows
    Show {
        /// The key's id or name
        #[arg(value_name = "KEY")]
        key: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Change what a key allows; tunnels that it no longer allows end at once
    Edit(EditArgs),
    /// End a key for good, with its sessions and tunnels
    Revoke {
        /// The key's id or name
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a key that was revoked or has expired from the list
    Delete {
        /// The key's id or name
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// Give a key a new secret and print the key, once; the earlier one stops working, and its sessions end
    Rotate {
        /// The key's id or name
        #[arg(value_name = "KEY")]
        key: String,
        /// How long the earlier secret still works, such as 1h [default: not at all]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
        #[command(flatten)]
        place: Place,
    },
}

/// Where keys are.
#[derive(Debug, Args)]
pub(in crate::cli) struct Place {
    /// The configuration file; its state_dir has the keys
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// The key's name, for the log and for listings
    #[arg(long)]
    name: String,
    /// How long the key works, such as 90d, or until when, such as 2027-01-31 [default: no end]
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expires: Option<Expiry>,
    /// Make a key for the configuration file instead of the store: its section goes to standard error
    #[arg(long)]
    pub(super) for_config: bool,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `edit`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EditArgs {
    /// The key's id or name
    #[arg(value_name = "KEY")]
    pub(super) key: String,
    /// A new name
    #[arg(long)]
    name: Option<String>,
    /// How long the key works from now on, such as 90d, until when, such as 2027-01-31, or never for no end
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expires: Option<Expiry>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    place: Place,
}

/// What a key allows.
#[derive(Debug, Args)]
struct LimitArgs {
    /// A name that the key may use, or a pattern such as "demo-*"; repeatable, and all together replace those before
    #[arg(long = "subdomain", value_name = "PATTERN", value_parser = parse_pattern)]
    subdomains: Vec<String>,
    /// The most tunnels at once [default for a new key: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_TUNNELS))]
    max_tunnels: Option<u64>,
    /// The most sessions at once [default for a new key: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_SESSIONS))]
    max_sessions: Option<u64>,
    /// The most exchanges at once in all its tunnels, or none for no limit
    #[arg(long, value_name = "N", value_parser = parse_number)]
    max_exchanges: Option<Limit>,
    /// Requests in all its tunnels, such as 10/s or "10/s burst 50", or none for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate::<false>)]
    requests: Option<Setting<RequestRate>>,
    /// Bytes of bodies in all its tunnels, such as 1MiB/s or "1MiB/s burst 8MiB", or none for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate::<true>)]
    bytes: Option<Setting<ByteRate>>,
}

/// A limit, or none.
type Limit = Setting<NonZeroU32>;
/// An end, or none.
type Expiry = Setting<Moment>;

impl KeyCommand {
    /// The configuration file.
    pub(super) fn file(&self) -> &Path {
        match self {
            Self::Create(args) => &args.place.config,
            Self::Edit(args) => &args.place.config,
            Self::List { place, .. }
            | Self::Show { place, .. }
            | Self::Revoke { place, .. }
            | Self::Delete { place, .. }
            | Self::Rotate { place, .. } => &place.config,
        }
    }
}

impl CreateArgs {
    /// What the new key is.
    pub(super) fn changes(&self) -> Changes {
        self.limits.changes(Some(self.name.clone()), self.expires)
    }

    /// The section of a key with this digest in the configuration file.
    pub(super) fn section(&self, digest: &str) -> String {
        let (name, limits) = (&self.name, &self.limits);
        let subdomains = if limits.subdomains.is_empty() { &["*".to_owned()][..] } else { &limits.subdomains };
        let max_tunnels = limits.max_tunnels.unwrap_or(10);
        let mut section = format!(
            "[[keys]]\nname = {name:?}\nsecret_sha256 = \"{digest}\"\nsubdomains = {subdomains:?}\nmax_tunnels = \
             {max_tunnels}\n"
        );
        // Writing to a string does not fail.
        if let Some(most) = limits.max_sessions {
            let _written = writeln!(section, "max_sessions = {most}");
        }
        if let Some(Setting::Is(most)) = limits.max_exchanges {
            let _written = writeln!(section, "max_exchanges = {most}");
        }
        if let Some(Setting::Is(rate)) = limits.requests {
            let _written = writeln!(section, "requests = \"{rate}\"");
        }
        if let Some(Setting::Is(rate)) = limits.bytes {
            let _written = writeln!(section, "bytes = \"{rate}\"");
        }
        if let Some(Setting::Is(moment)) = self.expires {
            let _written = writeln!(section, "expires = \"{}\"", humantime::format_rfc3339_seconds(moment.0));
        }
        section
    }
}

impl EditArgs {
    /// What changes.
    pub(super) fn changes(&self) -> Changes {
        self.limits.changes(self.name.clone(), self.expires)
    }
}

impl LimitArgs {
    fn changes(&self, name: Option<String>, expires: Option<Expiry>) -> Changes {
        Changes {
            name,
            subdomains: Some(self.subdomains.clone()).filter(|patterns| !patterns.is_empty()),
            max_tunnels: self.max_tunnels.map(|most| most as usize),
            max_sessions: self.max_sessions.map(|most| most as usize),
            max_exchanges: self.max_exchanges.unwrap_or_default(),
            requests: self.requests.unwrap_or_default(),
            bytes: self.bytes.unwrap_or_default(),
            expires: expires.unwrap_or_default(),
        }
    }
}

fn parse_pattern(text: &str) -> Result<String, String> {
    SubdomainPattern::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn parse_number(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Setting::Goes);
    }
    text.parse().map(Setting::Is).map_err(|_| "expected a whole number from 1 on, or none".to_owned())
}

fn parse_rate<const OF_BYTES: bool>(text: &str) -> Result<Setting<RateText<OF_BYTES>>, String> {
    match Rate::parse_limit(text, RateText::<OF_BYTES>::UNIT) {
        Ok(None) => Ok(Setting::Goes),
        Ok(Some(rate)) => Ok(Setting::Is(RateText(rate))),
        Err(example) => Err(format!("expected {example}, or none")),
    }
}

/// Reads `never`, a date, a moment, or a time from now on.
fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Setting::Goes);
    }
    // A date alone is its first moment, as in the configuration file.
    let moment = if text.len() == DATE_LENGTH { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let moment = humantime::parse_rfc3339(&moment).ok();
    let later = || SystemTime::now().checked_add(humantime::parse_duration(text).ok()?);
    let wrong = "expected a time such as 90d, a date such as 2027-01-31, or never";
    moment.or_else(later).map(|at| Setting::Is(Moment(at))).ok_or_else(|| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn an_expiry_is_a_time_a_date_or_never() {
        let midnight = UNIX_EPOCH + Duration::from_secs(1_801_353_600);
        for date in ["2027-01-31", "2027-01-31T00:00:00Z"] {
            assert_eq!(parse_expiry(date), Ok(Setting::Is(Moment(midnight))));
        }
        assert_eq!(parse_expiry("never"), Ok(Setting::Goes));
        let Ok(Setting::Is(Moment(at))) = parse_expiry("90d") else { panic!() };
        let left = at.duration_since(SystemTime::now()).unwrap();
        assert!(left <= Duration::from_secs(90 * 86400) && left > Duration::from_secs(89 * 86400));
        for wrong in ["", "soon", "2027-13-31", "99999999999999999y"] {
            assert!(parse_expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        let is = |number| Ok(Setting::Is(NonZeroU32::new(number).unwrap()));
        assert_eq!((parse_number("7"), parse_number("none")), (is(7), Ok(Setting::Goes)));
        for wrong in ["0", "-1", "many", "4294967296", ""] {
            assert!(parse_number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_written_as_in_the_configuration() {
        let rate = |per_second, burst| Ok(Setting::Is(RateText(Rate::new(per_second, burst))));
        assert_eq!(parse_rate::<false>("10/s burst 50"), rate(10, 50));
        assert_eq!(
            (parse_rate::<true>("2KiB/s"), parse_rate("none")),
            (Ok(Setting::Is(RateText::<true>(Rate::new(2048, 2048)))), Ok(Setting::<ByteRate>::Goes),)
        );
        for wrong in ["", "0", "7", "1KiB/s", "10/s:50"] {
            assert!(parse_rate::<false>(wrong).unwrap_err().ends_with("or none"), "{wrong}");
        }
    }
}
