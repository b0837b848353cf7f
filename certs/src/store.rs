//! What an ACME client keeps on disk: its account, its certificates by generation, and when it may try again.
//!
//! One folder for each directory URL, so that a staging server and the real one never mix:
//!
//! ```text
//! acme/<host>-<hash>/lock              held by the process that orders
//!                    account.json      account key and account URL
//!                    account.next.json the same with a new key, until the server is known to take it
//!                    published.json    TXT values that are to be taken away again
//!                    state.json        what renewal remembers
//!                    renew             somebody wants a new certificate now
//!                    rollover          somebody wants a new account key
//!                    generations/0007  chain.pem and key.pem; the one before is kept
//!                    damaged/          what could not be read
//! ```
//!
//! A generation is written to a temporary folder, synced, renamed and synced again, so that it is there whole or not at
//! all. Everything is for the owner alone.

mod blocking;
mod damaged;
mod folder;
mod generations;
mod lock;
mod requests;

pub(crate) use self::blocking::on_disk;
pub use self::folder::Store;
pub use self::generations::Stored;
pub use self::requests::Request;

#[cfg(test)]
mod tests;
