//! Publishes TXT records at DNS providers through their own APIs, by the crate dns-update.
//!
//! The tests run against PowerDNS alone, since the others need an account. For those they only show that settings are
//! checked.

use std::fmt;
use std::time::Duration;

use dns_update::providers::route53::Route53Config;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};
use hickory_proto::rr::Name;
use tokio::time::timeout;

use super::lookup::Resolver;
use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};

/// The longest that one request to a provider may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a change may take. It is several requests: find the zone, read its records, write one.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The time to live of values, in seconds: the least that nearly all providers accept.
const TTL: u32 = 300;
/// The time to live for providers that accept no less.
const LONG_TTL: u32 = 600;

/// The supported providers, in alphabetical order.
pub const PROVIDERS: &[&str] = &[
    "bunny",
    "cloudflare",
    "desec",
    "digitalocean",
    "dnsimple",
    "domeneshop",
    "exoscale",
    "gandi",
    "gcore",
    "godaddy",
    "hetzner",
    "hostinger",
    "infomaniak",
    "ionos",
    "linode",
    "luadns",
    "namedotcom",
    "netlify",
    "ns1",
    "pdns",
    "porkbun",
    "route53",
    "scaleway",
    "vultr",
    "zoneeu",
];

/// The operator's settings.
#[derive(Clone, Default)]
pub struct Settings {
    /// The provider's token, secret key or password.
    pub token: String,
    /// What some providers need besides the token: the key's identifier, the user's name or the account's number.
    pub id: Option<String>,
    /// The zone at the provider. Without it, the system's resolver finds it.
    pub zone: Option<String>,
}

/// The solver. Its debug output contains no secret.
pub struct Cloud {
    provider: &'static str,
    challenge: Name,
    zone: Option<Name>,
    updater: DnsUpdater,
    ttl: u32,
}

impl Cloud {
    /// A solver for the challenges of a domain. `provider` is one of [`PROVIDERS`].
    pub fn new(domain: &str, provider: &str, settings: Settings) -> Result<Self, SolverError> {
        let setup = |why: String| SolverError::Setup(why);
        let Some(provider) = PROVIDERS.iter().copied().find(|known| *known == provider) else {
            return Err(setup(format!("there is no DNS provider {provider:?}; there are: {}", PROVIDERS.join(", "))));
        };
        let name = |text: &str| parse_name(text).map_err(|why| setup(format!("{text:?} is not a DNS name: {why}")));
        let Settings { token, id, zone } = settings;
        let token = token.trim();
        // Such a token fits into no header field, and the request would go out without it.
        if token.is_empty() || token.chars().any(char::is_control) {
            return Err(setup(format!("the token for {provider} is empty or has more than one line")));
        }
        let (updater, ttl) = updater(provider, token, id.as_deref())?;
        Ok(Self {
            provider,
            challenge: name(&challenge_name(domain))?,
            zone: zone.as_deref().map(name).transpose()?,
            updater,
            ttl,
        })
    }

    async fn change(&self, value: &str, change: Change) -> Result<(), SolverError> {
        let (name, zone) = self.place().await?;
        let (record, kind) = (vec![DnsRecord::TXT(value.to_owned())], DnsRecordType::TXT);
        let (at, origin) = (name.to_ascii(), zone.to_ascii());
        let (at, origin) = (at.as_str(), origin.as_str());
        let changed = timeout(TIMEOUT, async {
            match change {
                Change::Add => self.updater.add_to_rrset(at, kind, self.ttl, record, origin).await,
                Change::Remove => self.updater.remove_from_rrset(at, kind, record, origin).await,
            }
        });
        let what = format!("{} does not change the TXT records of {name} in the zone {zone}", self.provider);
        match changed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Unauthorized)) => Err(SolverError::Setup(format!(
                "{what}: it does not accept the token, or the token may not change this zone"
            ))),
            Ok(Err(error @ (Error::NotFound | Error::Unsupported(_)))) => {
                Err(SolverError::Setup(format!("{what}: {error}")))
            }
            Ok(Err(error)) => Err(SolverError::Unavailable(format!("{what}: {error}"))),
            Err(_) => Err(SolverError::Unavailable(format!("{what}: no answer within {} s", TIMEOUT.as_secs()))),
        }
    }

    /// The name where the values belong, which may be the target of a CNAME record, and its zone.
    async fn place(&self) -> Result<(Name, Name), SolverError> {
        let unknown = |why: String| {
            SolverError::Unavailable(format!("cannot find the zone of {}: {why}; it can be set", self.challenge))
        };
        let resolver = Resolver::system().await;
        if let Some(zone) = &self.zone {
            let target = match resolver {
                Ok(resolver) => resolver.target(&self.challenge).await.unwrap_or_else(|_| self.challenge.clone()),
                Err(_) => self.challenge.clone(),
            };
            // The configured zone may hold the challenge's own name, even if the resolver follows a CNAME record.
            let name = [target, self.challenge.clone()].into_iter().find(|name| zone.zone_of(name));
            let name =
                name.ok_or_else(|| SolverError::Setup(format!("{} is not in the zone {zone}", self.challenge)))?;
            return Ok((name, zone.clone()));
        }
        let resolver = resolver.map_err(|error| unknown(error.to_string()))?;
        let target = resolver.target(&self.challenge).await.map_err(|error| unknown(error.to_string()))?;
        let zone = resolver.zone(&target).await.map_err(|error| unknown(error.to_string()))?;
        Ok((target, zone))
    }
}

impl Solver for Cloud {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Add))
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change(value, Change::Remove))
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(propagation::settled(&self.challenge, values, None))
    }
}

impl fmt::Debug for Cloud {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cloud")
            .field("provider", &self.provider)
            .field("challenge", &self.challenge)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Settings").field("id", &self.id).field("zone", &self.zone).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Add,
    Remove,
}

/// The API client of a provider, and the time to live that it accepts.
fn updater(provider: &str, token: &str, id: Option<&str>) -> Result<(DnsUpdater, u32), SolverError> {
    let time = Some(REQUEST_TIMEOUT);
    let id = |what: &str| {
        id.filter(|id| !id.is_empty()).ok_or_else(|| SolverError::Setup(format!("{provider} wants {what} as id")))
    };
    let made = match provider {
        "bunny" => DnsUpdater::new_bunny(token, time),
        "cloudflare" => DnsUpdater::new_cloudflare(token, time),
        "desec" => DnsUpdater::new_desec(token, time),
        "digitalocean" => DnsUpdater::new_digitalocean(token, time),
        "dnsimple" => DnsUpdater::new_dnsimple(token, id("the account's number")?, time),
        "domeneshop" => DnsUpdater::new_domeneshop(id("the API token")?, token, time),
        "exoscale" => DnsUpdater::new_exoscale(id("the API key")?, token, time),
        "gandi" => DnsUpdater::new_gandiv5(token, time),
        "gcore" => DnsUpdater::new_gcore(token, time),
        "godaddy" => DnsUpdater::new_godaddy(id("the API key")?, token, time),
        "hetzner" => DnsUpdater::new_hetzner(token, time),
        "hostinger" => DnsUpdater::new_hostinger(token, time),
        "infomaniak" => DnsUpdater::new_infomaniak(token, time),
        "ionos" => DnsUpdater::new_ionos(token, time),
        "linode" => DnsUpdater::new_linode(token, time),
        "luadns" => DnsUpdater::new_luadns(id("the user's name")?, token, time),
        "namedotcom" => DnsUpdater::new_namedotcom(id("the user's name")?, token, time),
        "netlify" => DnsUpdater::new_netlify(token, time),
        "ns1" => DnsUpdater::new_ns1(token, time),
        "pdns" => DnsUpdater::new_pdns(token, Some(id("the URL of its interface")?), None::<&str>, time),
        "porkbun" => DnsUpdater::new_porkbun(id("the API key")?, token, time),
        "route53" => DnsUpdater::new_route53(Route53Config {
            access_key_id: id("the access key's identifier")?.to_owned(),
            secret_access_key: token.to_owned(),
            session_token: None,
            region: None,
            hosted_zone_id: None,
            private_zone_only: None,
            endpoint: None,
        }),
        "scaleway" => DnsUpdater::new_scaleway(token, time),
        "vultr" => DnsUpdater::new_vultr(token, time),
        "zoneeu" => DnsUpdater::new_zoneeu(id("the user's name")?, token, time),
        // Unreachable for the providers of the list, as a test shows.
        _ => return Err(SolverError::Setup(format!("there is no DNS provider {provider:?}"))),
    };
    let ttl = if matches!(provider, "godaddy" | "porkbun") { LONG_TTL } else { TTL };
    let updater =
        made.map_err(|error| SolverError::Setup(format!("the settings for {provider} are wrong: {error}")))?;
    Ok((updater, ttl))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(token: &str, id: Option<&str>) -> Settings {
        Settings { token: token.to_owned(), id: id.map(str::to_owned), zone: Some("example.com".to_owned()) }
    }

    fn refusal(provider: &str, settings: Settings) -> String {
        match Cloud::new("tunnel.example.com", provider, settings) {
            Err(SolverError::Setup(why)) => why,
            other => panic!("{provider}: {other:?}"),
        }
    }

    #[test]
    fn each_listed_provider_works_and_shows_no_secret() {
        assert!(PROVIDERS.is_sorted());
        for provider in PROVIDERS {
            let settings = settings("t0ken", Some("id"));
            assert!(!format!("{settings:?}").contains("t0ken"));
            let cloud = Cloud::new("tunnel.example.com", provider, settings).unwrap();
            let shown = format!("{cloud:?}");
            assert!(shown.contains(provider) && !shown.contains("t0ken"), "{shown}");
        }
    }

    #[test]
    fn wrong_settings_say_what_is_needed() {
        let why = refusal("nowhere", settings("t0ken", None));
        assert!(why.contains("\"nowhere\"") && why.contains("cloudflare, desec"), "{why}");
        for token in ["", " \n", "two\nlines"] {
            let why = refusal("cloudflare", settings(token, None));
            assert!(why.contains("cloudflare") && !why.contains("two"), "{why}");
        }
        let why = refusal("route53", settings("t0ken", None));
        assert!(why.contains("route53 wants the access key's identifier as id"), "{why}");
        assert!(refusal("porkbun", settings("t0ken", Some(""))).contains("porkbun wants the API key"));
        let zone = Settings { zone: Some("a..b".to_owned()), ..settings("t0ken", None) };
        assert!(refusal("cloudflare", zone).contains("a..b"));
    }

    #[tokio::test]
    async fn a_zone_that_does_not_hold_the_name_is_refused() {
        let settings = Settings { zone: Some("example.org".to_owned()), ..settings("t0ken", None) };
        let cloud = Cloud::new("tunnel.example.com", "cloudflare", settings).unwrap();
        let error = cloud.place().await.unwrap_err();
        assert!(matches!(&error, SolverError::Setup(why) if why.contains("example.org.")), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_provider_is_named() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings("t0ken", Some(&format!("http://{closed}")));
        let cloud = Cloud::new("tunnel.example.com", "pdns", settings).unwrap();
        let error = cloud.present("value").await.unwrap_err();
        let SolverError::Unavailable(why) = error else { panic!("{error:?}") };
        assert!(why.contains("pdns does not change the TXT records of _acme-challenge.tunnel.example.com."), "{why}");
        assert!(!why.contains("t0ken"), "{why}");
    }
}
