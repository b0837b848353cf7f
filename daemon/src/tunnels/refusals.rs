//! Why clients do not get names, or lose them, as they hear it.

use cok_proto::{ErrorCode, ErrorMessage};

use crate::names::Subdomain;

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
