//! What the inspector makes of exchanges: their bytes taken apart, secrets masked, and other tools' formats.

pub(crate) mod decode;
pub(crate) mod secrets;
