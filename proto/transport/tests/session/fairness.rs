//! Tunnels of one session are fair to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cok_proto::{Bind, Bound, TunnelFrame};
use cok_transport::{Config, Received, Transport};
use http::StatusCode;

use crate::pair::{Ends, MIB, config, head, noise, ok, read_all, soon};

/// Exchanges of the loaded tunnel whose visitors read all they can.
const BULK: usize = 500;
/// Exchanges of the loaded tunnel whose visitors read nothing.
const UNREAD: usize = 200;
/// A tunnel may have half of the session's exchanges.
const MOST: u32 = 1500;
const LOADED: u32 = 0;
const QUICK: u32 = 1;
const REQUESTS: usize = 100;

/// Answers `/quick` with 1 KiB, and all else with an endless body.
async fn serve(client: Arc<dyn Transport>) {
    while let Some(mut incoming) = client.accept().await {
        tokio::spawn(async move {
            let send = &mut incoming.exchange.send;
            send.send_response(ok(), false).unwrap();
            if incoming.head.target == "/quick" {
                if send.ready().await.is_ok() {
                    send.send_data(noise(1024), true);
                }
                let _sent = send.ready().await;
                return;
            }
            let piece = noise(16 * 1024);
            while send.ready().await.is_ok() {
                send.send_data(piece.clone(), false);
                tokio::task::yield_now().await;
            }
        });
    }
}

async fn bind_second(daemon: &Arc<dyn Transport>, client: &Arc<dyn Transport>) {
    assert!(client.bind(QUICK, &Bind::default()));
    assert!(matches!(soon(daemon.tunnel_frame()).await, Some((QUICK, TunnelFrame::Bind(_)))));
    assert!(daemon.answer_bind(QUICK, Ok(Bound { subdomain: "quick".to_owned(), url: String::new() })));
    assert!(matches!(soon(client.tunnel_frame()).await, Some((QUICK, TunnelFrame::Bound(_)))));
}

/// The median and the longest time of requests to the second tunnel.
async fn latency(daemon: &Arc<dyn Transport>) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let began = Instant::now();
        let mut asked = daemon.open(QUICK, head("/quick"), true).unwrap();
        let (body, _) = read_all(&mut asked.recv).await;
        assert_eq!(body.len(), 1024);
        times.push(began.elapsed());
    }
    times.sort();
    (times[REQUESTS / 2], times[REQUESTS - 1])
}

/// Reads an endless body.
fn read(daemon: &Arc<dyn Transport>, tunnel: u32, read: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    let mut asked = daemon.open(tunnel, head("/endless"), true).unwrap();
    tokio::spawn(async move {
        while let Ok(received) = asked.recv.recv().await {
            match received {
                Received::Data { data, .. } => drop(read.fetch_add(data.len() as u64, Ordering::Relaxed)),
                Received::Head { head, .. } => assert_eq!(head.status, StatusCode::OK),
                Received::Trailers(_) => return,
            }
            // Unlike a socket, this would let a task go on for ever.
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_tunnel_leaves_the_other_its_latency() {
    let ends = Ends::new();
    let pair = ends.session(Config { max_exchanges: MOST, ..config() }).await;
    let (daemon, client) = (&pair.daemon, &pair.client);
    bind_second(daemon, client).await;
    tokio::spawn(serve(client.clone()));
    let (idle, idle_most) = latency(daemon).await;
    let (bulk, own) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut tasks: Vec<_> = (0..BULK).map(|_| read(daemon, LOADED, bulk.clone())).collect();
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        let mut asked = daemon.open(LOADED, head("/endless"), true).unwrap();
        soon(asked.recv.recv()).await.unwrap();
        unread.push(asked);
    }
    let (onset, onset_most) = latency(daemon).await;
    while bulk.load(Ordering::Relaxed) < 64 * MIB as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (loaded, loaded_most) = latency(daemon).await;
    let before = bulk.load(Ordering::Relaxed);
    tasks.push(read(daemon, QUICK, own.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (bulk, own) = (bulk.load(Ordering::Relaxed) - before, own.load(Ordering::Relaxed));
    println!(
        "median {idle:.1?} (most {idle_most:.1?}) alone, {onset:.1?} ({onset_most:.1?}) as {BULK} bulk and \
         {UNREAD} unread exchanges begin, {loaded:.1?} ({loaded_most:.1?}) beside them; one download got {} MiB in 1 s, \
         {BULK} of the other tunnel {} MiB",
        own / MIB as u64,
        bulk / MIB as u64
    );
    assert!(onset_most < Duration::from_secs(1) && loaded_most < Duration::from_secs(1));
    // Turns by exchanges would give it a five-hundredth. Here the machine is the limit, not the path.
    assert!(own > bulk / 50, "{own} bytes against {bulk}");
    for task in tasks {
        task.abort();
    }
}
