//! A session from Connect to its end: authorization, its name, and its service. It is granted once its name is
//! reserved, and serves once the grant is written.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use cok_certs::one_line;
use cok_host::quoted::quoted;
use cok_proto::{Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage};
use cok_transport::{Handshake, Transport};
use tracing::info;

use super::Tunnels;
use super::directory::{Claim, Owner, Registration};
use super::origin::{CHOOSE_ANOTHER, Origin, rounded};
use crate::admission::KeyRecord;
use crate::drain::Phase;
use crate::names::Subdomain;

/// The longest accepted instance id in bytes. Our client's has 32.
const MAX_INSTANCE: usize = 64;
/// How many rounds of suggested names are tried for a client that asks for none.
const SUGGESTION_ROUNDS: usize = 4;

/// Grants or refuses a session, and holds its name until it ends.
pub(super) async fn serve(tunnels: &Arc<Tunnels>, handshake: Box<dyn Handshake>, origin: Origin) {
    let connect = handshake.connect().clone();
    let wanted = connect.subdomain.as_deref();
    let (key, name) = match authorize(tunnels, &connect) {
        Ok(authorized) => authorized,
        Err((refusal, key)) => {
            origin.refused(&refusal, wanted, key.as_deref());
            return handshake.refuse(&refusal);
        }
    };
    let refused = |refusal: &ErrorMessage| origin.refused(refusal, Some(name.as_str()), Some(&key));
    let Some(_permit) = tunnels.admission.tunnels.acquire(&key, &name) else {
        let refusal = ErrorMessage {
            code: ErrorCode::LimitReached,
            message: format!("the key has its {} tunnels already", key.max_tunnels),
            retryable: false,
        };
        refused(&refusal);
        return handshake.refuse(&refusal);
    };
    let id = format!("{:032x}", fastrand::u128(..));
    let claim = Claim {
        name: name.clone(),
        owner: Owner { key: key.name.clone(), instance: connect.instance.clone() },
        replaces: connect.replaces,
        session: id.clone(),
    };
    let reservation = match tunnels.directory.claim(claim) {
        Ok(reservation) => reservation,
        Err(refusal) => {
            refused(&refusal);
            return handshake.refuse(&refusal);
        }
    };
    let transport = handshake.accept(&tunnels.grant(&id, &name));
    let registration = match reservation.activate(transport.clone(), tunnels.drain.timeout()) {
        Ok(registration) => registration,
        Err(refusal) => {
            refused(&refusal);
            return transport.close(refusal);
        }
    };
    let (began, peer, key) = (Instant::now(), origin.peer, &key.name);
    let version = one_line(&connect.version);
    info!(
        %peer, %name, %key, session = %id, version, transport = origin.transport,
        "tunnel {name} online: key {key}, from {origin}"
    );
    tunnels.metrics.active_tunnels.inc();
    if tunnels.drain.phase() >= Phase::GoingAway {
        transport.drain(DrainReason::Restart, tunnels.drain.timeout());
    }
    let reason = tokio::select! {
        reason = transport.closed() => reason,
        never = follow_silence(&*transport, &registration, &name) => match never {},
    };
    drop(registration);
    tunnels.metrics.active_tunnels.dec();
    let (lasted, reason) = (rounded(began.elapsed()), one_line(&reason.to_string()));
    info!(%peer, %name, %key, session = %id, reason, "tunnel {name} offline after {lasted}: {reason}");
}

impl Tunnels {
    fn grant(&self, session: &str, name: &Subdomain) -> ConnectAck {
        let config = self.config();
        ConnectAck {
            session: session.to_owned(),
            subdomain: name.to_string(),
            url: self.address.url(name),
            initial_window: config.initial_window,
            max_exchanges: config.max_exchanges,
            features: Vec::new(),
        }
    }
}

/// Makes visitors wait while the client is silent.
async fn follow_silence(transport: &dyn Transport, registration: &Registration, name: &Subdomain) -> Infallible {
    let Some(mut silence) = transport.silence() else { return pending().await };
    while silence.changed().await.is_ok() {
        let silent = *silence.borrow_and_update();
        registration.set_silent(silent);
        if silent {
            info!(%name, "tunnel {name} silent: its client gives no sign of life; visitors wait");
        } else {
            info!(%name, "tunnel {name} heard again");
        }
    }
    pending().await
}

/// A refusal, with the key if that is valid.
type Refused = (ErrorMessage, Option<Arc<KeyRecord>>);

/// Checks the key and returns it with the name to claim.
fn authorize(tunnels: &Tunnels, connect: &Connect) -> Result<(Arc<KeyRecord>, Subdomain), Refused> {
    let refusal = |code, message: String| ErrorMessage { code, message, retryable: false };
    let Some(key) = tunnels.admission.keys.authenticate(&connect.key, SystemTime::now()) else {
        let message = "the API key is unknown or has expired; ask the server's operator for a new one";
        return Err((refusal(ErrorCode::Unauthorized, message.to_owned()), None));
    };
    let refuse = |code, message| Err((refusal(code, message), Some(key.clone())));
    if connect.instance.is_empty() || connect.instance.len() > MAX_INSTANCE {
        return refuse(ErrorCode::Protocol, format!("the instance id must have 1 to {MAX_INSTANCE} bytes"));
    }
    let Some(wanted) = &connect.subdomain else {
        let mut suggestions = (0..SUGGESTION_ROUNDS).flat_map(|_| key.suggestions().collect::<Vec<_>>());
        return match suggestions.find(|name| tunnels.directory.find(name).is_none()) {
            Some(name) => Ok((key.clone(), name)),
            None => refuse(ErrorCode::NameTaken, "all names of this key are in use; name one yourself".to_owned()),
        };
    };
    let name = match Subdomain::parse(wanted) {
        Ok(name) => name,
        Err(error) => {
            return refuse(ErrorCode::NameForbidden, format!("{} cannot be a subdomain: {error}", quoted(wanted)));
        }
    };
    if !key.may_use(&name) {
        let message = format!("this key may not use the name \"{name}\"{CHOOSE_ANOTHER}");
        return refuse(ErrorCode::NameForbidden, message);
    }
    Ok((key.clone(), name))
}
