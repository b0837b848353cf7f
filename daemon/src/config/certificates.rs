//! `[tls]`, `[acme]` and `[acme.dns]`: where certificates come from.

use std::net::IpAddr;

use cok_certs::dns::embedded::{Host, Zone};
use cok_certs::dns::rfc2136;
use cok_host::settings::{Section, got};
use http::Uri;

use crate::certificates::{Acme, Dns, ExternalAccount, Tls, Tsig};
use crate::names::Hostname;

/// The default ACME directory.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The DNS providers that this build supports.
#[cfg(feature = "cloud-dns")]
const CLOUDS: &[&str] = cok_certs::dns::cloud::PROVIDERS;
#[cfg(not(feature = "cloud-dns"))]
const CLOUDS: &[&str] = &[];

/// The protocols in the HTTPS records of the whole domain. HTTP/1.1 needs no entry.
const ALPN: [&str; 2] = ["h3", "h2"];

/// Reads `[tls]`, and `[acme]` if `[tls]` uses it. `port` is the public HTTPS port.
pub(super) fn tls(mut section: Section<'_>, acme: Section<'_>, domain: Option<&Hostname>, port: u16) -> Option<Tls> {
    let mode = match section.optional("mode", "\"acme\", \"files\" or \"self-signed\"", |text: &str| match text {
        "acme" | "files" | "self-signed" => Ok(text.to_owned()),
        other => Err(got(other)),
    }) {
        None if section.has("mode") => None,
        mode => Some(mode.unwrap_or_else(|| "acme".to_owned())),
    };
    let mut file = |key| {
        let path = section.path(key);
        match (mode.as_deref(), &path) {
            (Some("files"), None) if !section.has(key) => {
                section.mistake(key, "expected a path to a PEM file, since mode = \"files\"");
            }
            // A relative path may name a credential, which only the service can see.
            (Some("files"), Some(path)) if path.is_absolute() && !path.is_file() => section.no_file(key, path),
            (Some(mode @ ("acme" | "self-signed")), Some(_)) => {
                section.mistake(key, &format!("is not used with mode = {mode:?}"));
            }
            _ => {}
        }
        path
    };
    let (cert, key) = (file("cert"), file("key"));
    section.finish();
    match mode?.as_str() {
        "files" => {
            acme.unused("is not used with mode = \"files\"");
            Some(Tls::Files { cert: cert?, key: key? })
        }
        "self-signed" => {
            acme.unused("is not used with mode = \"self-signed\"");
            Some(Tls::SelfSigned)
        }
        _ => Some(Tls::Acme(Box::new(self::acme(acme, domain, port)?))),
    }
}

fn acme(mut section: Section<'_>, domain: Option<&Hostname>, port: u16) -> Option<Acme> {
    let directory = section.optional("directory", "a URL such as \"https://acme.example.com/directory\"", https_url);
    let directory = directory.or_else(|| (!section.has("directory")).then(|| LETS_ENCRYPT.to_owned()));
    let contact = section.list("contact", "an address such as \"mailto:ops@example.com\"", |text| {
        text.parse::<Uri>().is_ok().then(|| text.to_owned()).filter(|text| text.contains(':'))
    });
    let ca_file = section.existing_file("ca_file");
    let profile = section.optional("profile", "a profile's name", filled);
    let key_id = section.optional("eab_key_id", "a key identifier", filled);
    let hmac_key_file = section.secret_file("eab_hmac_key_file");
    let external_account = both(&section, ("eab_key_id", key_id), ("eab_hmac_key_file", hmac_key_file))
        .map(|(key_id, hmac_key_file)| ExternalAccount { key_id, hmac_key_file });
    let dns = dns(section.section("dns"), domain, port);
    section.finish();
    let contact = contact.unwrap_or_default();
    Some(Acme { directory: directory?, contact, ca_file, profile, external_account, dns: dns? })
}

fn dns(mut section: Section<'_>, domain: Option<&Hostname>, port: u16) -> Option<Dns> {
    let expected = "\"embedded\", \"exec\", \"httpreq\" or \"rfc2136\"";
    let provider = section.optional("provider", expected, |text: &str| match text {
        "embedded" | "exec" | "httpreq" | "rfc2136" => Ok(text.to_owned()),
        cloud if CLOUDS.contains(&cloud) => Ok(text.to_owned()),
        other if CLOUDS.is_empty() => {
            Err(format!("{}; cloud providers need a cokd that was built with --features cloud-dns", got(other)))
        }
        other => Err(format!("or one of {}, {}", CLOUDS.join(", "), got(other))),
    });
    // The keys of an unknown provider cannot be checked.
    let provider = match provider {
        None if section.has("provider") => return None,
        provider => provider.unwrap_or_else(|| "embedded".to_owned()),
    };
    let dns = match provider.as_str() {
        "exec" => section.required_path("program").map(|program| {
            if !program.is_file() {
                section.no_file("program", &program);
            }
            Dns::Exec { program }
        }),
        "httpreq" => httpreq(&mut section),
        "rfc2136" => rfc2136(&mut section),
        "embedded" => embedded(&mut section, domain, port).map(|zone| Dns::Embedded(Box::new(zone))),
        _ => cloud(&mut section, provider),
    };
    section.finish();
    dns
}

fn embedded(section: &mut Section<'_>, domain: Option<&Hostname>, port: u16) -> Option<Zone> {
    let name = |text: &str| Hostname::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string());
    let name_server = section.optional("name_server", "a host name such as \"ns1.example.com\"", name);
    let challenge_name = section.optional("challenge_name", "a DNS name such as \"x.acme.example.net\"", filled);
    let whole = section.flag("whole_domain", false);
    let addresses = section.list("addresses", "an address such as \"192.0.2.1\"", |text| text.parse::<IpAddr>().ok());
    let issuers = section.list("issuers", "an authority's domain such as \"letsencrypt.org\"", |text| name(text).ok());
    let domain = domain?.as_str();
    let zone = if whole {
        if challenge_name.is_some() {
            section.mistake("challenge_name", "is not used with whole_domain = true");
        }
        if addresses.as_ref().is_none_or(Vec::is_empty) {
            section.mistake("addresses", "expected this machine's public addresses, since whole_domain = true");
        }
        let (addresses, issuers) = (addresses.unwrap_or_default(), issuers.unwrap_or_default());
        let port = (port != 443).then_some(port);
        let host = Host { addresses, issuers, alpn: ALPN.map(str::to_owned).to_vec(), port };
        Zone::whole(domain, name_server.as_deref(), host)
    } else {
        for key in ["addresses", "issuers"] {
            if section.has(key) {
                section.mistake(key, "is used with whole_domain = true only");
            }
        }
        Zone::challenge(domain, challenge_name.as_deref(), name_server.as_deref())
    };
    match zone {
        Ok(zone) => Some(zone),
        Err(error) => {
            section.mistake("challenge_name", &error.to_string());
            None
        }
    }
}

fn httpreq(section: &mut Section<'_>) -> Option<Dns> {
    let url = section.required("url", "a URL such as \"https://hook.example.com\"", |text: &str| {
        let uri = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        let uri = uri.filter(|uri| uri.query().is_none()).ok_or_else(|| got(text))?;
        match uri.authority() {
            // The message does not quote it: it may contain a password.
            Some(authority) if authority.as_str().contains('@') => {
                Err("got one with a user's name in it, which belongs into username and password_file".to_owned())
            }
            Some(_) => Ok(text.to_owned()),
            None => Err(got(text)),
        }
    });
    let username = section.optional("username", "a user's name", filled);
    let password_file = section.secret_file("password_file");
    let ca_file = section.existing_file("ca_file");
    if password_file.is_some() && username.is_none() {
        section.mistake("password_file", "needs username beside it");
    }
    Some(Dns::HttpReq { url: url?, username, password_file, ca_file })
}

fn rfc2136(section: &mut Section<'_>) -> Option<Dns> {
    let server = |text: &str| if rfc2136::is_server(text) { Ok(text.to_owned()) } else { Err(got(text)) };
    let server = section.required("server", "a name server such as \"192.0.2.53\" or \"ns1.example.com:53\"", server);
    let zone = section.optional("zone", "a zone such as \"example.com\"", dns_name);
    let name = section.optional("tsig_name", "the key's name", dns_name);
    let algorithm = |text: &str| if rfc2136::is_algorithm(text) { Ok(text.to_owned()) } else { Err(got(text)) };
    let expected = "\"hmac-sha256\", \"hmac-sha384\" or \"hmac-sha512\"";
    let algorithm = section.optional("tsig_algorithm", expected, algorithm);
    let secret_file = section.secret_file("tsig_secret_file");
    let tsig = both(section, ("tsig_name", name), ("tsig_secret_file", secret_file)).map(|(name, secret_file)| Tsig {
        name,
        algorithm: algorithm.unwrap_or_else(|| "hmac-sha256".to_owned()),
        secret_file,
    });
    Some(Dns::Rfc2136 { server: server?, zone, tsig })
}

fn cloud(section: &mut Section<'_>, provider: String) -> Option<Dns> {
    let token_file = section.secret_file("token_file");
    if token_file.is_none() && !section.has("token_file") {
        section.mistake("token_file", "expected a path to the file with the provider's token");
    }
    let id = section.optional("id", "what the provider wants beside the token", filled);
    let zone = section.optional("zone", "a zone such as \"example.com\"", dns_name);
    Some(Dns::Cloud { provider, token_file: token_file?, id, zone })
}

/// Two keys that are only valid together, each with its name. One alone is a mistake.
fn both<A, B>(section: &Section<'_>, a: (&str, Option<A>), b: (&str, Option<B>)) -> Option<(A, B)> {
    let ((a, first), (b, second)) = (a, b);
    for (there, other) in [(a, b), (b, a)] {
        if section.has(there) && !section.has(other) {
            section.mistake(there, &format!("needs {other} beside it"));
        }
    }
    first.zip(second)
}

fn filled(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("got nothing".to_owned()) } else { Ok(text.to_owned()) }
}

fn dns_name(text: &str) -> Result<String, String> {
    if cok_certs::dns::is_name(text) { Ok(text.to_owned()) } else { Err(got(text)) }
}

fn https_url(text: &str) -> Result<String, String> {
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https") && uri.authority().is_some());
    uri.map(|_| text.to_owned()).ok_or_else(|| got(text))
}
