//! The public HTTPS side: requests of visitors over HTTP/1.1, HTTP/2 and HTTP/3, and the responses that they get. It knows
//! no sockets and opens no tunnels; `listen` brings connections, `tunnels` carries requests.

mod access;
mod body;
mod claims;
mod context;
mod drive;
mod forward;
mod grpc;
mod head_timer;
mod headers;
mod http1;
mod http2;
pub(crate) mod http3;
mod interim;
mod judge;
mod known;
mod lifecycle;
mod lifetime;
mod limited;
mod linger;
mod lingering_close;
mod pace;
mod pages;
mod parting;
mod parts;
mod persistent;
mod proxied;
mod recording;
mod request;
mod respond;
mod response_judge;
mod retry;
mod route;
mod server_timing;
mod service;
mod tcp;
mod unread;
mod upgrade;
mod upload;
mod visitor;

pub(crate) use self::parts::{Config, Edge, Parts};
pub(crate) use self::route::{Route, route};
pub(crate) use self::tcp::serve;
pub(crate) use self::visitor::Arrival;
