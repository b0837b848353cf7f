//! Who names the proxy: a flag, the environment or the file, in this order. Hosts may be exempt.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::{InvalidProxy, ProxyUrl};
use crate::server::names_this_machine;
use crate::target::Address;

/// The variables that name a proxy for HTTPS, the strongest first. Lower case beats upper case, as in curl.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables with the hosts that are reached without a proxy.
const EXEMPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// How the file is called in messages.
#[cfg(feature = "program")]
pub(crate) const FILE: &str = "the configuration file";

/// Whether a proxy is from the environment.
#[cfg(feature = "program")]
pub(crate) fn is_of_environment(origin: &str) -> bool {
    VARIABLES.contains(&origin)
}

/// The words in place of a URL that switch a weaker setting off.
fn is_off(text: &str) -> bool {
    ["none", "off"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// What the file says of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg(feature = "program")]
pub(crate) struct ProxySetting(Option<ProxyUrl>);

#[cfg(feature = "program")]
impl ProxySetting {
    /// Reads a URL, or the word for none. The error does not quote it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if is_off(text) {
            return Ok(Self(None));
        }
        let proxy = ProxyUrl::parse(text).map_err(|why| InvalidProxy::new("this file", why).to_string())?;
        Ok(Self(Some(proxy)))
    }
}

/// The proxy to the host, and who has named it. The one of a flag is always used. Others are not used towards this
/// machine itself, and towards hosts that the environment exempts.
#[cfg(feature = "program")]
pub(crate) fn choose(
    flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    file: Option<&ProxySetting>,
    server: &Address,
) -> Result<Option<(ProxyUrl, &'static str)>, InvalidProxy> {
    const FLAG: &str = "--proxy";
    if let Some(text) = flag {
        return read(text, FLAG);
    }
    if is_exempt(server, &variable) {
        return Ok(None);
    }
    if let Some((name, text)) = named(&variable) {
        return read(&text, name);
    }
    Ok(file.and_then(|ProxySetting(proxy)| Some((proxy.clone()?, FILE))))
}

/// The proxy to the host that the environment names, and the name of its variable.
pub(crate) fn from_environment(
    variable: impl Fn(&str) -> Option<String>,
    server: &Address,
) -> Result<Option<(ProxyUrl, &'static str)>, InvalidProxy> {
    match named(&variable) {
        Some((name, text)) if !is_exempt(server, &variable) => read(&text, name),
        _ => Ok(None),
    }
}

fn named(variable: &impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)))
}

fn read(text: &str, origin: &'static str) -> Result<Option<(ProxyUrl, &'static str)>, InvalidProxy> {
    if is_off(text) {
        return Ok(None);
    }
    ProxyUrl::parse(text).map(|proxy| Some((proxy, origin))).map_err(|why| InvalidProxy::new(origin, why))
}

fn is_exempt(server: &Address, variable: &impl Fn(&str) -> Option<String>) -> bool {
    if names_this_machine(&server.host) {
        return true;
    }
    let host = server.host.trim_end_matches('.');
    let Some(hosts) = EXEMPT.into_iter().find_map(variable) else { return false };
    let port = server.port;
    let authority = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let Ok(target) = Uri::builder().scheme("https").authority(authority).path_and_query("/").build() else {
        return false;
    };
    // The proxy is a stand-in: only the exemptions count here.
    let hosts = exemptions(&hosts, port);
    Matcher::builder().https("http://proxy").no(hosts).build().intercept(&target).is_none()
}

/// The list as the matcher reads it, without entries for other ports. Commas or spaces separate the entries. A leading `*.` and
/// a trailing dot mean nothing, as the matcher takes every entry with all names below it.
fn exemptions(list: &str, port: u16) -> String {
    let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter_map(|entry| {
        let (entry, of_port) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => (address, rest.strip_prefix(':')),
            None => match entry.split_once(':') {
                // More colons are an IPv6 address.
                Some((host, number)) if !number.contains(':') => (host, Some(number)),
                _ => (entry, None),
            },
        };
        let entry = entry.strip_prefix("*.").unwrap_or(entry).trim_end_matches('.');
        let is_meant = of_port.is_none_or(|number| number.parse() == Ok(port));
        (is_meant && !entry.is_empty()).then_some(entry)
    });
    entries.collect::<Vec<_>>().join(",")
}

#[cfg(feature = "program")]
#[cfg(test)]
mod tests {
    use super::*;

    /// Who has named the proxy to `host`, and the proxy.
    fn chosen(
        flag: Option<&str>,
        set: &[(&str, &str)],
        file: Option<&str>,
        host: &str,
    ) -> Option<(&'static str, String)> {
        let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let file = file.map(|text| ProxySetting::parse(text).unwrap());
        let server = Address { host: host.to_owned(), port: 443 };
        let chosen = choose(flag, variable, file.as_ref(), &server).unwrap();
        chosen.map(|(proxy, origin)| (origin, proxy.address.host))
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let host = "t.example";
        let by = |origin, proxy: &str| Some((origin, proxy.to_owned()));
        let (lower, upper, all) = (("https_proxy", "lower"), ("HTTPS_PROXY", "upper"), ("ALL_PROXY", "all"));
        assert_eq!(chosen(Some("flag"), &[upper], Some("file"), host), by("--proxy", "flag"));
        assert_eq!(chosen(None, &[all, upper, lower], Some("file"), host), by("https_proxy", "lower"));
        assert_eq!(chosen(None, &[all, upper], Some("file"), host), by("HTTPS_PROXY", "upper"));
        assert_eq!(chosen(None, &[all], Some("file"), host), by("ALL_PROXY", "all"));
        assert_eq!(chosen(None, &[("HTTP_PROXY", "plain")], Some("file"), host), by("the configuration file", "file"));
        assert_eq!(chosen(None, &[], None, host), None);
        for off in ["none", "off", "None"] {
            assert_eq!(chosen(Some(off), &[upper], Some("file"), host), None);
            assert_eq!(chosen(None, &[("https_proxy", off), upper], Some("file"), host), None);
            assert_eq!(chosen(None, &[], Some(off), host), None);
        }
    }

    #[test]
    fn hosts_are_exempt_unless_a_flag_names_the_proxy() {
        let proxy = ("https_proxy", "proxy");
        for (hosts, host, exempt) in [
            ("t.example", "t.example", true),
            ("example", "t.example", true),
            (".example", "t.example", true),
            ("other, T.example", "t.example", true),
            ("xample", "t.example", false),
            ("t.example.org", "t.example", false),
            ("*", "t.example", true),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("fd00::/8", "fd00::1", true),
            ("*.example", "t.example", true),
            ("*.example", "t.other", false),
            ("t.example:443", "t.example", true),
            ("t.example:8443", "t.example", false),
            ("fd00::1", "fd00::1", true),
            ("[fd00::1]:443", "fd00::1", true),
            ("[fd00::1]:80", "fd00::1", false),
            ("other t.example", "t.example", true),
            ("other,\t.example. ,", "t.example", true),
            ("t.example", "t.example.", true),
            (".", "t.example", false),
            ("other, *", "t.example", true),
            ("", "localhost", true),
            ("", "127.0.0.2", true),
            ("", "::1", true),
            ("", "t.example", false),
        ] {
            let set = [proxy, ("no_proxy", hosts)];
            assert_eq!(chosen(None, &set, None, host).is_none(), exempt, "{hosts} {host}");
            assert_eq!(chosen(None, &set[1..], Some("proxy"), host).is_none(), exempt, "{hosts} {host}");
            assert!(chosen(Some("proxy"), &set, None, host).is_some());
        }
    }

    #[test]
    fn a_mistake_names_its_place_and_not_its_secret() {
        let variable = |name: &str| (name == "ALL_PROXY").then(|| "ftp://me:secret@proxy".to_owned());
        let server = Address { host: "t.example".to_owned(), port: 443 };
        let error = choose(None, variable, None, &server).unwrap_err().to_string();
        assert!(error.starts_with("the proxy of ALL_PROXY: its scheme is unknown; ") && !error.contains("secret"));
        let error = ProxySetting::parse("http://me:secret@").unwrap_err();
        assert!(error.starts_with("the proxy of this file: ") && !error.contains("secret"), "{error}");
    }
}
