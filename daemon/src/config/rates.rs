//! `[rates]`.

use cok_host::settings::{Section, got};
use cok_proto::rate::Unit;

use crate::admission::Rate;
use crate::admission::rates::Config;

/// Reads `[rates]`. Without a key, its default counts.
pub(super) fn rates(mut section: Section<'_>) -> Config {
    let usual = Config::default();
    let mut rate = |key, unit, default| limit(&mut section, key, unit, default);
    let config = Config {
        requests_per_address: rate("requests_per_address", Unit::Count, usual.requests_per_address),
        requests_per_tunnel: rate("requests_per_tunnel", Unit::Count, usual.requests_per_tunnel),
        requests_per_key: rate("requests_per_key", Unit::Count, usual.requests_per_key),
        bytes_per_tunnel: rate("bytes_per_tunnel", Unit::Bytes, usual.bytes_per_tunnel),
        bytes_per_key: rate("bytes_per_key", Unit::Bytes, usual.bytes_per_key),
        connections_per_address: rate("connections_per_address", Unit::Count, usual.connections_per_address),
        handshakes_per_address: rate("handshakes_per_address", Unit::Count, usual.handshakes_per_address),
    };
    section.finish();
    config
}

/// Reads a rate, or `none`. Without the key, the default counts.
pub(super) fn limit(section: &mut Section<'_>, key: &'static str, unit: Unit, default: Option<Rate>) -> Option<Rate> {
    let expected = format!("{}, or \"none\"", unit.example());
    let limit = section.optional(key, &expected, |text| Rate::parse_limit(text, unit).map_err(|_| got(text)));
    limit.unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn rates_have_defaults_and_can_be_switched_off() {
        let base = "domain = \"a.example\"\ntls.mode = \"self-signed\"\n[rates]\n";
        let load = |text: &str| Config::parse(&format!("{base}{text}"), "f").map(|config| config.admission.live.rates);
        assert_eq!(load("").unwrap(), crate::admission::rates::Config::default());
        let own = load("requests_per_address = \"none\"\nbytes_per_key = \"1MiB/s burst 2MiB\"\n").unwrap();
        assert_eq!((own.requests_per_address, own.bytes_per_key), (None, Some(Rate::new(1 << 20, 2 << 20))));
        let own = load("requests_per_tunnel = \"5/s\"\nbytes_per_tunnel = \"2KiB/s\"\n").unwrap();
        assert_eq!(own.requests_per_tunnel, Some(Rate::new(5, 50)), "a burst of ten seconds");
        assert_eq!(own.bytes_per_tunnel, Some(Rate::new(2048, 2048)), "a burst of one second");
        let mistakes = load("requests_per_tunnel = \"10\"\nrequests = \"1/s\"\n").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(told[0].contains("rates.requests_per_tunnel: expected a rate such as \"10/s\""), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
    }
}
