//! Why a proxy does not lead to the daemon, and the user's remedy.

use std::fmt;
use std::time::Duration;

use super::failure::Cause;
use crate::outbound::{Kind, Outbound};
use crate::target::Address;

/// A proxy does not lead to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyFailure {
    /// The proxy without its secrets, and who has named it.
    proxy: String,
    kind: Kind,
    /// What it was asked for.
    to: String,
    why: Why,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There is no connection to the proxy.
    Unreachable(Box<Cause>),
    /// It wants a user and a password.
    NoLogin,
    /// It does not accept those that it got.
    WrongLogin,
    /// It wants a login that this program does not know.
    OtherLogin(String),
    /// Its rules forbid the way.
    Forbidden(String),
    /// It cannot resolve the name.
    Unresolved,
    /// It cannot connect there.
    NoWay(String),
    /// It answers something else.
    Answer(String),
    /// It does not answer.
    Silent(Duration),
    /// The connection ended during the request.
    Broken(String),
    /// It does not behave as a proxy.
    NotAProxy(String),
}

impl Why {
    /// Whether another address of the same host may do.
    pub(super) fn is_about_the_address(&self) -> bool {
        matches!(self, Self::NoWay(_))
    }
}

impl ProxyFailure {
    pub(super) fn new(outbound: &Outbound, to: &Address, why: Why) -> Self {
        Self { proxy: outbound.to_string(), kind: outbound.proxy.kind, to: to.to_string(), why }
    }

    /// The user's remedy.
    pub(super) fn advice(&self) -> &'static str {
        match &self.why {
            Why::Unreachable(_) | Why::Silent(_) => {
                "check the proxy; without one, --proxy none or NO_PROXY leads there directly"
            }
            Why::NoLogin => match self.kind {
                Kind::Http => "name them in its URL, as in http://USER:PASSWORD@PROXY:PORT",
                Kind::Https => "name them in its URL, as in https://USER:PASSWORD@PROXY:PORT",
                Kind::Socks5 => "name them in its URL, as in socks5://USER:PASSWORD@PROXY:PORT",
                Kind::Socks5h => "name them in its URL, as in socks5h://USER:PASSWORD@PROXY:PORT",
            },
            Why::WrongLogin => "check the user and the password in its URL; percent-encode :, @ and /",
            Why::OtherLogin(_) => "cok-client knows passwords alone; a local proxy such as cntlm can log in for it",
            Why::Forbidden(_) => "ask its operator to allow this host and port",
            Why::Unresolved => "check the name of the server; does the proxy know names of this network only?",
            Why::NoWay(_) => "is cokd running there, and may the proxy connect to this port?",
            Why::Answer(_) | Why::Broken(_) | Why::NotAProxy(_) => "is it a proxy of this kind, and on this port?",
        }
    }
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, to, why, .. } = self;
        match why {
            Why::Unreachable(cause) => write!(f, "the proxy {proxy} cannot be reached: {cause}"),
            Why::NoLogin => write!(f, "the proxy {proxy} wants a user and a password"),
            Why::WrongLogin => write!(f, "the proxy {proxy} does not accept the user and the password"),
            Why::OtherLogin(which) => write!(f, "the proxy {proxy} wants another login: {which}"),
            Why::Forbidden(status) => write!(f, "the proxy {proxy} does not allow the way to {to}: {status}"),
            Why::Unresolved => write!(f, "the proxy {proxy} cannot resolve the name of {to}"),
            Why::NoWay(status) => write!(f, "the proxy {proxy} cannot connect to {to}: {status}"),
            Why::Answer(status) => write!(f, "the proxy {proxy} does not connect to {to}: {status}"),
            Why::Silent(within) => {
                write!(f, "the proxy {proxy} does not answer for {to} within {} s", within.as_secs())
            }
            Why::Broken(why) => write!(f, "the connection to the proxy {proxy} broke: {why}"),
            Why::NotAProxy(why) => write!(f, "the proxy {proxy} does not behave as one: {why}"),
        }
    }
}
