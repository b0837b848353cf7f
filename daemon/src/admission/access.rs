//! The rules of one tunnel for its visitors, ready to be compared with requests. The edge asks; this part answers.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use cok_proto::Rules;
use cok_proto::rate::{Rate, Unit};
use cok_proto::rules::{PathPrefix, ShareKey};
use cok_proto::share::{CLOCK_SKEW, LinkId, MAX_LIFETIME, Token};
use ipnet::IpNet;
use subtle::{Choice, ConstantTimeEq as _};

use crate::names::Subdomain;

/// Whom a tunnel lets in. It belongs to a binding and moves with it.
#[derive(Debug)]
pub(crate) struct Access {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// The paths that visitors may ask for. Empty if all.
    pub(crate) paths: Vec<PathPrefix>,
    /// The passwords that let visitors in.
    pub(crate) passwords: Option<Passwords>,
    /// What verifies the share links that let visitors in.
    pub(crate) share: Option<ShareVerifier>,
    /// How often each visitor's address may ask.
    pub(crate) rate: Option<Rate>,
}

impl Access {
    /// For the tunnel with this name. `None` without rules. Fails if there are no random numbers to be had.
    pub(crate) fn new(rules: &Rules, name: &Subdomain) -> Result<Option<Arc<Self>>, Unspecified> {
        if rules.is_empty() {
            return Ok(None);
        }
        let passwords = if rules.basic_auth.is_empty() {
            None
        } else {
            Some(Passwords::new(rules.basic_auth.iter().map(|pair| pair.as_str().as_bytes()))?)
        };
        Ok(Some(Arc::new(Self {
            allow: rules.allow_cidr.clone(),
            deny: rules.deny_cidr.clone(),
            paths: rules.allow_path.clone(),
            passwords,
            share: rules.share.as_ref().map(|key| ShareVerifier::new(key, name, &rules.share_revoked)),
            rate: rules.rate,
        })))
    }

    /// Whether a visitor from this address may come in. One whose address is not known may if no rule asks for it.
    pub(crate) fn admits(&self, address: Option<IpAddr>) -> bool {
        if self.allow.is_empty() && self.deny.is_empty() {
            return true;
        }
        let Some(address) = address else { return false };
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

impl fmt::Display for Access {
    /// The kinds of rules, for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate.map(|rate| format!("visitor rate {}", rate.written(Unit::Count)));
        let kinds = [
            (!self.deny.is_empty()).then_some("denied networks"),
            (!self.allow.is_empty()).then_some("allowed networks"),
            (!self.paths.is_empty()).then_some("allowed paths"),
            self.passwords.is_some().then_some("passwords"),
            self.share.is_some().then_some("share links"),
            rate.as_deref(),
        ];
        f.write_str(&kinds.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Passwords with their users, hashed.
///
/// Each request is checked, so a hash that is slow on purpose would let visitors exhaust the processor. An HMAC with a random
/// key suffices, because neither the key nor the hashes are ever written down. An attacker who reads the daemon's memory also
/// reads the passwords that visitors send.
pub(crate) struct Passwords {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
}

impl Passwords {
    fn new<'a>(credentials: impl Iterator<Item = &'a [u8]>) -> Result<Self, Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())?;
        let tags = credentials.map(|pair| hmac::sign(&key, pair)).collect();
        Ok(Self { key, tags })
    }

    /// Whether `user:password` is one of them. Takes the same time for each pair of one length.
    pub(crate) fn contain(&self, credentials: &[u8]) -> bool {
        let tag = hmac::sign(&self.key, credentials);
        let compare = |found: Choice, known: &hmac::Tag| found | known.as_ref().ct_eq(tag.as_ref());
        self.tags.iter().fold(Choice::from(0), compare).into()
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("count", &self.tags.len()).finish_non_exhaustive()
    }
}

/// Verifies the share links of one tunnel.
#[derive(Debug)]
pub(crate) struct ShareVerifier {
    key: hmac::Key,
    name: Subdomain,
    /// The links that were revoked, sorted.
    revoked: Vec<LinkId>,
}

/// Why a link does not let a visitor in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidLink {
    /// It is not one of this tunnel, lasts too long, or was revoked.
    Invalid,
    /// It has expired.
    Expired,
}

impl ShareVerifier {
    fn new(key: &ShareKey, name: &Subdomain, revoked: &[LinkId]) -> Self {
        let mut revoked = revoked.to_vec();
        revoked.sort_unstable();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), name: name.clone(), revoked }
    }

    /// Verifies a token at this time. Returns how many seconds it has left.
    pub(crate) fn verify(&self, token: &Token, now: SystemTime) -> Result<u64, InvalidLink> {
        let text = token.grant.signed_text(self.name.as_str());
        hmac::verify(&self.key, text.as_bytes(), &token.signature).map_err(|_| InvalidLink::Invalid)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = token.grant.expires.checked_sub(now).filter(|left| *left > 0).ok_or(InvalidLink::Expired)?;
        let is_revoked = self.revoked.binary_search(&token.grant.id).is_ok();
        if is_revoked || left > (MAX_LIFETIME + CLOCK_SKEW).as_secs() { Err(InvalidLink::Invalid) } else { Ok(left) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cok_proto::share::Grant;
    use serde_json::json;

    use super::*;

    fn access(rules: &serde_json::Value) -> Arc<Access> {
        Access::new(&Rules::parse(rules).unwrap(), &Subdomain::parse("demo").unwrap()).unwrap().unwrap()
    }

    #[test]
    fn networks_are_denied_before_they_are_allowed() {
        let access = access(&json!({"allow_cidr": ["10.0.0.0/8", "2001:db8::/32"], "deny_cidr": ["10.1.0.0/16"]}));
        for (address, admitted) in
            [("10.0.0.1", true), ("10.1.0.1", false), ("11.0.0.1", false), ("2001:db8::1", true), ("::1", false)]
        {
            assert_eq!(access.admits(Some(address.parse().unwrap())), admitted, "{address}");
        }
        assert!(!access.admits(None), "it may be one that is denied");
    }

    #[test]
    fn passwords_are_compared_whole_and_not_shown() {
        let access = access(&json!({"basic_auth": ["me:secret", "you:other:secret"]}));
        let passwords = access.passwords.as_ref().unwrap();
        for (pair, known) in [
            ("me:secret", true),
            ("you:other:secret", true),
            ("me:other:secret", false),
            ("me:secre", false),
            ("", false),
        ] {
            assert_eq!(passwords.contain(pair.as_bytes()), known, "{pair}");
        }
        assert_eq!(format!("{passwords:?}"), "Passwords { count: 2, .. }");
        assert_eq!(access.to_string(), "passwords");
    }

    #[test]
    fn links_are_for_one_name_and_one_time() {
        let key = ShareKey::new([7; 32]);
        let signer = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let token = |name: &str, path: &str, expires: u64| {
            let grant = Grant { id: LinkId::new([1; 8]), expires, path: path.parse().unwrap() };
            let signature = hmac::sign(&signer, grant.signed_text(name).as_bytes()).as_ref().try_into().unwrap();
            Token { grant, signature }
        };
        let verifier = ShareVerifier::new(&key, &Subdomain::parse("demo").unwrap(), &[LinkId::new([2; 8])]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(verifier.verify(&token("demo", "/", 1060), now), Ok(60));
        assert_eq!(verifier.verify(&token("demo", "/", 1000), now), Err(InvalidLink::Expired));
        assert_eq!(verifier.verify(&token("other", "/", 1060), now), Err(InvalidLink::Invalid));
        assert_eq!(verifier.verify(&token("demo", "/", 1000 + 91 * 24 * 3600), now), Err(InvalidLink::Invalid));
        let mut widened = token("demo", "/x", 1060);
        widened.grant.path = PathPrefix::root();
        assert_eq!(verifier.verify(&widened, now), Err(InvalidLink::Invalid));
        let mut prolonged = token("demo", "/", 1000);
        prolonged.grant.expires += 1;
        assert_eq!(verifier.verify(&prolonged, now), Err(InvalidLink::Invalid));
        let ids = [LinkId::new([3; 8]), LinkId::new([1; 8])];
        let revoked = ShareVerifier::new(&key, &Subdomain::parse("demo").unwrap(), &ids);
        assert_eq!(revoked.verify(&token("demo", "/", 1060), now), Err(InvalidLink::Invalid));
    }
}
