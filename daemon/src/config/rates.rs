//! `[rates]`.

use cok_host::settings::Section;

use crate::admission::Rate;
use crate::admission::rates::{BYTE_NOTATION, Config, NOTATION};

/// Reads `[rates]`. Without a key, its default counts.
pub(super) fn rates(mut section: Section<'_>) -> Config {
    let usual = Config::default();
    let mut rate = |key, notation, default| section.optional(key, notation, Rate::parse).unwrap_or(default);
    let config = Config {
        requests_per_address: rate("requests_per_address", NOTATION, usual.requests_per_address),
        requests_per_tunnel: rate("requests_per_tunnel", NOTATION, usual.requests_per_tunnel),
        requests_per_key: rate("requests_per_key", NOTATION, usual.requests_per_key),
        bytes_per_tunnel: rate("bytes_per_tunnel", BYTE_NOTATION, usual.bytes_per_tunnel),
        bytes_per_key: rate("bytes_per_key", BYTE_NOTATION, usual.bytes_per_key),
        connections_per_address: rate("connections_per_address", NOTATION, usual.connections_per_address),
        handshakes_per_address: rate("handshakes_per_address", NOTATION, usual.handshakes_per_address),
    };
    section.finish();
    config
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
        let own = load("requests_per_address = \"0\"\nbytes_per_key = \"1MiB/s burst 2MiB\"\n").unwrap();
        assert_eq!((own.requests_per_address, own.bytes_per_key), (None, Some(Rate::new(1 << 20, 2 << 20))));
        let mistakes = load("requests_per_tunnel = \"10\"\nrequests = \"1/s\"\n").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(told[0].contains("rates.requests_per_tunnel: expected a rate such as \"10/s\""), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
    }
}
