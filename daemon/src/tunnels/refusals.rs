//! Why clients do not get names, or lose them, as they hear it.

use cok_proto::{ErrorCode, ErrorMessage};

use crate::admission::KeyRecord;
use crate::names::Subdomain;

/// The key is unknown, revoked or expired. The client does not learn which.
pub(super) fn unauthorized() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Unauthorized,
        message: "the API key is unknown or has expired; ask the server's operator for a new one".to_owned(),
        retryable: false,
    }
}

/// The stored keys are not known yet, so nothing can be said about this one.
pub(super) fn keys_unread() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Internal,
        message: "the server cannot read its API keys at the moment; try again".to_owned(),
        retryable: true,
    }
}

/// A session of the key may end at any time, so the client may try again.
pub(super) fn too_many_sessions(key: &KeyRecord) -> ErrorMessage {
    let (most, sessions) = (key.limits.sessions, if key.limits.sessions == 1 { "session" } else { "sessions" });
    ErrorMessage {
        code: ErrorCode::LimitReached,
        message: format!("the key has its {most} {sessions} already; stop another cok-client that uses it"),
        retryable: true,
    }
}

/// The name is another client's.
pub(super) fn taken(name: &Subdomain) -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::NameTaken,
        message: format!("the name \"{name}\" is in use by another client; choose another --subdomain"),
        retryable: false,
    }
}

pub(super) fn replaced() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Replaced,
        message: "another cok-client with the same key on this machine took the name over".to_owned(),
        retryable: false,
    }
}

pub(super) fn moved() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Moved,
        message: "the session's tunnels have moved to its successor".to_owned(),
        retryable: true,
    }
}

pub(super) fn superseded() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Moved,
        message: "a later Bind of the session asks for the name".to_owned(),
        retryable: true,
    }
}

pub(super) fn vanished() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::Timeout,
        message: "the client gave no sign of life, and another one has its name".to_owned(),
        retryable: true,
    }
}

pub(super) fn full() -> ErrorMessage {
    ErrorMessage {
        code: ErrorCode::LimitReached,
        message: "the server has no room for another name".to_owned(),
        retryable: true,
    }
}
