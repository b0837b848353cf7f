//! What keeps bytes from being taken apart, in words for the page.

use thiserror::Error;

use super::Coding;

/// Why something is not shown decoded, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Trouble {
    /// A content coding that is not known here.
    #[error("the coding {0:?} is not supported")]
    UnknownCoding(String),
    /// A message says that it is compressed, and no field says how.
    #[error("no field names the coding of compressed messages")]
    NoCoding,
    /// More codings on top of each other than [`Coding::MOST`].
    #[error("more than {} codings are stacked", Coding::MOST)]
    TooManyCodings,
    /// The compressed bytes are not what their coding says.
    #[error("damaged {0} data: {1}")]
    Damaged(Coding, &'static str),
    /// The compressed bytes need more memory than the limit.
    #[error("{0} data needs more memory than the inspector gives it")]
    TooMuchMemory(Coding),
    /// A few bytes became very many.
    #[error("the data grows too much when it is decompressed")]
    Expands,
    /// A charset that is not known here.
    #[error("the charset {0:?} is not supported, so UTF-8 stands in for it")]
    UnknownCharset(String),
    /// The bytes end before they should.
    #[error("the data ends early")]
    EndsEarly,
    /// Contents of a compressed message, after an earlier one was damaged or grew too much.
    #[error("an earlier message could not be decompressed, and this one depends on it")]
    Lost,
    /// The bytes break the rules of their format.
    #[error("not valid {format}: {why}")]
    Invalid {
        /// The format that the bytes are said to have.
        format: &'static str,
        /// The rule that they break.
        why: &'static str,
    },
}
