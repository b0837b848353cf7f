//! The cok client: it dials out to a cokd daemon and carries the requests that come back to a local service.
//!
//! As a library it opens tunnels in the same process. One tunnel to a local server:
//!
//! ```no_run
//! use cok_client::Tunnel;
//!
//! # async fn run() -> Result<(), cok_client::OpenError> {
//! let tunnel = Tunnel::builder("https://tunnel.example.com", "cok_my-key").subdomain("demo").target("3000").open().await?;
//! println!("{}", tunnel.url());
//! tokio::signal::ctrl_c().await.ok();
//! tunnel.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The target may be a service in the same process, such as an axum application. It needs no port:
//!
//! ```no_run
//! use axum::routing::get;
//! use axum::{Extension, Router};
//! use cok_client::{Tunnel, VisitorAddress};
//!
//! # async fn run() -> Result<(), cok_client::OpenError> {
//! let app = Router::new().route("/", get(|Extension(VisitorAddress(ip))| async move { format!("Hello, {ip}") }));
//! let tunnel = Tunnel::builder("https://tunnel.example.com", "cok_my-key").service(app).open().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Several tunnels share the session of a [`Client`]:
//!
//! ```no_run
//! use cok_client::{Client, Event};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://tunnel.example.com", "cok_my-key").keep_trying(true).connect()?;
//! let mut events = client.events();
//! let web = client.tunnel().subdomain("web").target("3000").open().await?;
//! let api = client.tunnel().subdomain("api").target("h2c://localhost:50051").open().await?;
//! while let Some(event) = events.next().await {
//!     if let Event::RequestBegan { tunnel, method, path, .. } = event
//!         && tunnel == web.handle()
//!     {
//!         println!("{method} {path}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A tunnel closes when it is dropped, and a client with its last clone and tunnel. All of it runs on Tokio.
//!
//! The feature `files` adds [`TunnelBuilder::folder`], which serves the files of a folder.
//!
//! The feature `trace` adds [`ClientBuilder::tracer`], which records requests as spans of OpenTelemetry.
//!
//! The feature `inspect` adds [`ClientBuilder::inspect`], which shows requests on a page of this machine.
//!
//! The feature `program`, which is on by default, adds the command line. A library does without:
//! `cok-client = { default-features = false }`.
//!
//! To follow a session in the code, open `session/keeper.rs`; to follow a request, `proxy/mod.rs`.

mod builder;
#[cfg(feature = "program")]
pub mod cli;
mod client;
#[cfg(feature = "program")]
mod config;
mod dial;
#[cfg(feature = "program")]
mod doctor;
mod event;
mod events;
mod exchange;
#[cfg(feature = "files")]
mod files;
mod flight;
#[cfg(feature = "inspect")]
mod inspect;
mod instance;
mod lenient;
#[cfg(feature = "program")]
pub mod logging;
mod name;
mod options;
mod outbound;
mod proxy;
#[cfg(feature = "program")]
mod revoked_links;
mod routes;
mod server;
mod service;
mod session;
mod settings;
mod share;
mod target;
mod target_trust;
mod text;
#[cfg(feature = "program")]
mod times;
#[cfg(feature = "trace")]
mod traced;
mod transport;
mod trust;
mod tunnel;
mod undialled;
mod unix_socket;
mod upgrades;

pub use builder::{ClientBuilder, TunnelBuilder};
pub use client::Client;
#[doc(hidden)]
pub use client::{Driver, OpenTunnel};
pub use cok_proto::{ErrorCode, ErrorMessage, Rules, rate, rules, share as share_links};
#[cfg(feature = "trace")]
pub use cok_trace::Tracer;
pub use cok_transport::Congestion;
pub use event::{Event, Lasting, Refused, TunnelHandle, TunnelState, TunnelStatus};
pub use events::{Events, Observation};
#[cfg(feature = "files")]
pub use files::InvalidFolder;
pub use http;
#[cfg(feature = "inspect")]
pub use inspect::{Inspect, Inspector};
pub use instance::instance_id;
#[doc(hidden)]
pub use options::{ClientOptions, TunnelOptions};
pub use options::{HostHeader, NAME_TIMEOUT};
#[doc(hidden)]
pub use outbound::Outbound;
pub use outbound::{InvalidProxy, ProxyUrl};
pub use server::{InvalidServer, Server};
pub use service::{Body, BoxError, LocalService, VisitorAddress};
pub use settings::{OpenError, SettingError};
pub use share::ShareSecret;
pub use target::{Address, InvalidTarget, Target};
pub use target_trust::{Fingerprint, InvalidFingerprint, TargetTrust};
pub use transport::{PROBE_INTERVAL, TransportChoice};
pub use trust::{CaFileError, TrustError};
#[doc(hidden)]
pub use trust::{trust_file, trust_system};
pub use tunnel::Tunnel;
#[doc(hidden)]
pub use undialled::serve_session;
pub use upgrades::{InvalidProtocol, UpgradeProtocol, Upgrades};
