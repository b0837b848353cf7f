//! What an ACME client keeps on disk: its account, its certificates by generation, and when it may try again.
//!
//! Each directory URL has its own folder, so that a staging server and the real one never mix:
//!
//! ```text
//! acme/<host>-<hash>/lock              held by the process that renews
//!                    account.json      account key and account URL
//!                    account.next.json the same with a new key, until the server has confirmed it
//!                    published.json    TXT values that have to be removed
//!                    state.json        what renewal remembers
//!                    renew             a request for a new certificate
//!                    rollover          a request for a new account key
//!                    generations/0007  chain.pem and key.pem; the previous one is kept
//!                    damaged/          unreadable files
//! ```
//!
//! A generation is written to a temporary folder, synced, renamed and synced again, so it exists whole or not at all.
//! Everything is for the owner alone. The store orders nothing and renews nothing.

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
