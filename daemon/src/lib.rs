//! The cok daemon: it terminates public HTTPS for the names under one domain and passes requests on to the clients that
//! own those names.
//!
//! To follow a request, open `listen`, `edge` and `tunnels`, then `cok-transport` and the client's session and proxy.
//! `app` builds all parts and is their table of contents.

mod admin;
mod admission;
mod app;
mod certificates;
pub mod cli;
mod config;
mod drain;
mod edge;
mod exchanges;
mod host;
mod listen;
mod names;
mod observe;
mod own_answers;
mod startup;
#[cfg(test)]
mod test_halves;
mod tunnels;
