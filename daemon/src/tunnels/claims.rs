//! Which name a client gets: what it may have, what is free, and what a client that vanished leaves behind.

use std::sync::Arc;

use cok_host::quoted::quoted;
use cok_proto::{ErrorCode, ErrorMessage, Rules};

use super::Tunnels;
use super::directory::{Claim, Denied, PROBE, Reservation, TakeFrom};
use super::origin::CHOOSE_ANOTHER;
use super::presence::Live;
use super::refusals::{taken, unauthorized};
use super::session::Client;
use crate::admission::{Access, KeyRecord, TunnelPermit};
use crate::names::Subdomain;
use crate::observe::Limit;

/// How many names are tried for a client that wants none in particular, for each pattern of its key.
const SUGGESTIONS: u32 = 16;
/// How often one name is claimed. Each time its client had just vanished, and another one came first.
const ROUNDS: usize = 3;

/// A name that is about to be a client's.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) reservation: Reservation,
    pub(super) permit: TunnelPermit,
}

impl Granted {
    /// With whom the tunnel lets in.
    pub(super) fn with_rules(mut self, rules: &Rules) -> Result<Self, ErrorMessage> {
        let access = Access::new(rules, &self.reservation.name);
        self.reservation.access = access.map_err(|_| ErrorMessage {
            code: ErrorCode::LimitReached,
            message: "the server has no random numbers for the tunnel's passwords".to_owned(),
            retryable: true,
        })?;
        Ok(self)
    }
}

/// A client asks for a tunnel.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) client: &'a Arc<Client>,
    /// The id that the tunnel will have.
    pub(super) tunnel: u32,
    /// `None` if the daemon is to pick the name.
    pub(super) wanted: Option<&'a str>,
    /// Whether it may displace another session of the same client.
    pub(super) take_over: bool,
}

/// Reserves the wanted name, or one that the daemon picks, or says why not.
pub(super) async fn claim(tunnels: &Tunnels, request: Request<'_>) -> Result<Granted, ErrorMessage> {
    let Request { client, tunnel, wanted, take_over } = request;
    let Some(wanted) = wanted else { return pick(tunnels, client, tunnel).await };
    let name = Subdomain::parse(wanted).map_err(|error| {
        let message = format!("{} cannot be a subdomain: {error}", quoted(wanted));
        refusal(ErrorCode::NameForbidden, message)
    })?;
    if !tunnels.config().names.allow(&*present_key(client)?, &name) {
        return Err(forbidden(&name));
    }
    let from = if take_over { TakeFrom::Client } else { TakeFrom::Session };
    claim_name(tunnels, Claim { name, client: client.clone(), tunnel, from, vanished: None }).await
}

/// Reserves the first name that is free. A client that asks again gets the same one.
async fn pick(tunnels: &Tunnels, client: &Arc<Client>, tunnel: u32) -> Result<Granted, ErrorMessage> {
    for counter in 0..SUGGESTIONS {
        for name in present_key(client)?.suggestions(&tunnels.name_filler(client, counter)) {
            if !tunnels.config().names.may_pick(&name) {
                continue;
            }
            let claim = Claim { name, client: client.clone(), tunnel, from: TakeFrom::NoOne, vanished: None };
            match claim_name(tunnels, claim).await {
                Err(error) if error.code == ErrorCode::NameTaken => {}
                result => return result,
            }
        }
    }
    Err(refusal(
        ErrorCode::NameTaken,
        "all names of this key are in use or reserved; name one with --subdomain".to_owned(),
    ))
}

async fn claim_name(tunnels: &Tunnels, mut claim: Claim) -> Result<Granted, ErrorMessage> {
    let key = present_key(&claim.client)?;
    let Some(permit) = tunnels.admission.tunnels.acquire(&key, &claim.name) else {
        tunnels.metrics.refusals.beyond(Limit::KeyTunnels);
        let (most, s) = (key.limits.tunnels, if key.limits.tunnels == 1 { "" } else { "s" });
        return Err(refusal(ErrorCode::LimitReached, format!("the key has its {most} tunnel{s} already")));
    };
    for _ in 0..ROUNDS {
        match tunnels.directory.claim(&claim) {
            Ok(reservation) => return Ok(Granted { reservation, permit }),
            Err(Denied::Refused(error)) => {
                // The directory refuses for no other limit.
                if error.code == ErrorCode::LimitReached {
                    tunnels.metrics.refusals.beyond(Limit::Names);
                }
                return Err(error);
            }
            Err(Denied::Served(live)) if answers(&live).await => break,
            Err(Denied::Served(live)) => claim.vanished = Some(live),
        }
    }
    Err(taken(&claim.name))
}

/// The client's key as it is now.
pub(super) fn present_key(client: &Client) -> Result<Arc<KeyRecord>, ErrorMessage> {
    client.grant.record().ok_or_else(unauthorized)
}

/// Whether the client that serves a tunnel is still there.
async fn answers(live: &Live) -> bool {
    live.transport.answers(PROBE).await
}

/// The key does not allow the name.
pub(super) fn forbidden(name: &Subdomain) -> ErrorMessage {
    let message = format!("this key may not use the name \"{name}\"{CHOOSE_ANOTHER}");
    refusal(ErrorCode::NameForbidden, message)
}

fn refusal(code: ErrorCode, message: String) -> ErrorMessage {
    ErrorMessage { code, message, retryable: false }
}
