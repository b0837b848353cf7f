//! Thousands of sessions in one process, over one TLS configuration and one UDP socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cok_client::{
    Client, ClientOptions, Event, HostHeader, Target, TargetTrust, TransportChoice, TunnelOptions, Upgrades,
};
use cok_transport::{Congestion, quic};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::stay;

/// The number of sessions that connect at the same time.
const AT_ONCE: usize = 50;

/// The sessions to open.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The daemon's address on the web
    #[arg(long)]
    server: String,
    /// The address to dial
    #[arg(long)]
    connect_to: SocketAddr,
    /// The certificate authority to trust, in PEM
    #[arg(long)]
    ca: PathBuf,
    /// The API key
    #[arg(long)]
    key: String,
    /// The transport, `ws` or `quic`
    #[arg(long)]
    transport: TransportChoice,
    /// The service of all tunnels
    #[arg(long)]
    target: Target,
    /// The number of sessions
    #[arg(long)]
    sessions: usize,
    /// The number of tunnels of each session
    #[arg(long, default_value_t = 1)]
    tunnels: usize,
    /// The first part of all names; a number follows
    #[arg(long)]
    prefix: String,
}

/// Opens all sessions and holds them.
pub(crate) async fn run(wanted: Wanted) -> anyhow::Result<()> {
    let tls = cok_client::trust_file(&wanted.ca)?;
    let options = ClientOptions {
        server: wanted.server.parse()?,
        connect_to: Some(wanted.connect_to),
        proxy: None,
        quic: quic::Dialer::new(&tls, &quic::Tuning { congestion: Congestion::Bbr })?,
        tls,
        transport: wanted.transport,
        congestion: Congestion::Bbr,
        probe_interval: cok_client::PROBE_INTERVAL,
        key: wanted.key.clone(),
        name_timeout: Duration::ZERO,
        keep_trying: false,
        log_queries: false,
        instance: cok_client::instance_id(std::path::Path::new("/dev/null"))?,
    };
    let (events, mut happened) = mpsc::unbounded_channel();
    let (stop, mut open) = (CancellationToken::new(), Vec::new());
    let mut online = 0;
    for number in 0..wanted.sessions {
        let (client, driver) = Client::new(options.clone());
        for tunnel in 0..wanted.tunnels {
            open.push(client.open(tunnel_options(&wanted, number * wanted.tunnels + tunnel))?);
        }
        let events = events.clone();
        tokio::spawn(driver.run(stop.clone(), move |event| _ = events.send(event)));
        let pending = open.len().saturating_sub(AT_ONCE * wanted.tunnels);
        await_online(&mut happened, &mut online, pending).await?;
    }
    await_online(&mut happened, &mut online, open.len()).await?;
    // Later events are of no interest, and must not pile up.
    tokio::spawn(async move { while happened.recv().await.is_some() {} });
    stay().await;
    Ok(())
}

fn tunnel_options(wanted: &Wanted, number: usize) -> TunnelOptions {
    TunnelOptions {
        label: None,
        subdomain: Some(format!("{}{number}", wanted.prefix)),
        rules: cok_client::Rules::default(),
        target: wanted.target.clone(),
        host_header: HostHeader::default(),
        target_trust: TargetTrust::default(),
        upgrades: Upgrades::default(),
        response_timeout: Some(Duration::from_secs(60)),
        connect_timeout: Duration::from_secs(10),
    }
}

/// Waits until this many tunnels are online.
async fn await_online(
    happened: &mut mpsc::UnboundedReceiver<Event>,
    online: &mut usize,
    enough: usize,
) -> anyhow::Result<()> {
    while *online < enough {
        match happened.recv().await.context("all clients have ended")? {
            Event::Connected { .. } => *online += 1,
            Event::Connecting { .. } => {}
            other => bail!("after {online} tunnels: {other:?}"),
        }
    }
    Ok(())
}
