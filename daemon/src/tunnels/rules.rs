//! Which names a key may have, and how many.

use std::collections::BTreeSet;

use crate::admission::KeyRecord;
use crate::names::Subdomain;

/// Names that people and programs trust to be the server's own. Among them are its pages, its mail (RFC 2142 and habit)
/// and its name servers, and what browsers and mail programs look for by themselves.
const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "console",
    "control",
    "cpanel",
    "dashboard",
    "dns",
    "email",
    "ftp",
    "help",
    "host",
    "hostmaster",
    "id",
    "idp",
    "imap",
    "internal",
    "localhost",
    "login",
    "mail",
    "manage",
    "mta-sts",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "ns3",
    "ns4",
    "oauth",
    "pop",
    "pop3",
    "portal",
    "postmaster",
    "proxy",
    "register",
    "root",
    "secure",
    "security",
    "server",
    "signin",
    "signup",
    "smtp",
    "sso",
    "status",
    "support",
    "system",
    "tunnel",
    "vpn",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

/// Rules for names. A reload changes them for names that are claimed from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameRules {
    /// Names that only a key has whose `subdomains` list them without a `*`. Default: some sixty names that people take for
    /// the server's own, such as `www`, `admin` and `mail`. The daemon never picks one.
    pub(crate) reserved: BTreeSet<Subdomain>,
    /// The most names that a key holds, online and away; its oldest away ones go first. A key may always hold as many as it
    /// may have tunnels. 1 to 100,000, default 1,000. A name costs some 400 bytes.
    pub(crate) max_per_key: usize,
}

impl Default for NameRules {
    fn default() -> Self {
        Self { reserved: RESERVED.iter().filter_map(|name| Subdomain::parse(name).ok()).collect(), max_per_key: 1000 }
    }
}

impl NameRules {
    /// Whether the key may have the name. A reserved one has to be among its patterns as it is. A name in another script
    /// needs a pattern that says so.
    pub(super) fn allow(&self, key: &KeyRecord, name: &Subdomain) -> bool {
        if self.may_pick(name) {
            return key.may_use(name);
        }
        let reserved = self.reserved.contains(name);
        key.subdomains
            .iter()
            .any(|pattern| pattern.is(name) || (!reserved && pattern.is_encoded() && pattern.matches(name)))
    }

    /// Whether the daemon may pick the name by itself.
    pub(super) fn may_pick(&self, name: &Subdomain) -> bool {
        !self.reserved.contains(name) && !name.is_encoded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::KeyLimits;
    use crate::names::{KeyDigest, SubdomainPattern};

    #[test]
    fn special_names_need_patterns_that_say_so() {
        let rules = NameRules::default();
        assert_eq!(rules.reserved.len(), RESERVED.len(), "each one is a label, and there once");
        for (patterns, name, allowed) in [
            (&["*"][..], "demo", true),
            (&["*"], "www", false),
            (&["w*", "*w"], "www", false),
            (&["*", "www"], "www", true),
            (&["*"], "xn--bcher-kva", false),
            (&["x*"], "xn--bcher-kva", false),
            (&["xn--*"], "xn--bcher-kva", true),
            (&["xn--b*"], "xn--cher-kva", false),
            (&["xn--bcher-kva"], "xn--bcher-kva", true),
            (&["mail"], "demo", false),
        ] {
            let key = KeyRecord {
                id: "k".into(),
                name: "k".into(),
                digest: KeyDigest::of("k"),
                subdomains: patterns.iter().map(|pattern| SubdomainPattern::parse(pattern).unwrap()).collect(),
                limits: KeyLimits::default(),
                expires: None,
            };
            let name = Subdomain::parse(name).unwrap();
            assert_eq!(rules.allow(&key, &name), allowed, "{patterns:?} {name}");
        }
        assert!(!rules.may_pick(&Subdomain::parse("admin").unwrap()));
        assert!(!rules.may_pick(&Subdomain::parse("xn--a").unwrap()));
    }
}
