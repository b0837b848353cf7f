//! Tunnels of one session are fair to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cok_proto::ConnectAck;
use cok_transport::{Received, Transport};
use http::StatusCode;

use crate::carried::{CARRIED, Carried, Session};
use crate::pair::{MIB, ack, connect, head, noise, ok, read_all, soon};

/// Exchanges of the loaded tunnel whose visitors read all they can.
const BULK: usize = 500;
/// Exchanges of the loaded tunnel whose visitors read nothing.
const UNREAD: usize = 200;
/// A tunnel may have half of the session's exchanges.
const MOST: u32 = 1500;
const LOADED: u32 = 0;
const QUICK: u32 = 1;
const REQUESTS: usize = 50;
const LATE: Duration = Duration::from_secs(1);
/// The load runs at full speed once its visitors have read so much.
const UNDER_WAY: u64 = 32 * MIB as u64;

/// Answers `/quick` with 1 KiB, and all else with an endless body.
async fn serve(client: Arc<dyn Transport>) {
    while let Some(mut incoming) = client.accept().await {
        tokio::spawn(async move {
            let send = &mut incoming.exchange.send;
            send.send_response(ok(), false).unwrap();
            if incoming.head.target.as_bytes() == b"/quick" {
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

/// The time within which half, nine tenths and all of the requests to the second tunnel have their responses.
async fn latency(daemon: &Arc<dyn Transport>) -> [Duration; 3] {
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let began = Instant::now();
        let mut asked = daemon.open(QUICK, head("/quick"), true).unwrap();
        let (body, _) = read_all(&mut asked.recv).await;
        assert_eq!(body.len(), 1024);
        times.push(began.elapsed());
    }
    times.sort();
    [times[REQUESTS / 2], times[REQUESTS * 9 / 10], times[REQUESTS - 1]]
}

/// Reads an endless body until the session ends.
fn read(daemon: &Arc<dyn Transport>, tunnel: u32, read: &Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    let mut asked = daemon.open(tunnel, head("/endless"), true).unwrap();
    let read = read.clone();
    tokio::spawn(async move {
        loop {
            match asked.recv.recv().await.unwrap() {
                Received::Data { data, .. } => drop(read.fetch_add(data.len() as u64, Ordering::Relaxed)),
                Received::Head { head, .. } => assert_eq!(head.status, StatusCode::OK),
                Received::Trailers(_) => panic!("the body has no end"),
            }
            // Unlike a socket, this never makes the task wait.
            tokio::task::yield_now().await;
        }
    })
}

async fn a_loaded_tunnel_leaves_the_other_its_latency(by: Carried) {
    let ack = ConnectAck { max_exchanges: MOST, ..ack() };
    let session = Session::begin(by, &connect(), &[], &ack, &[]).await;
    session.bind(QUICK).await;
    let daemon = &session.daemon;
    tokio::spawn(serve(session.client.clone()));
    let idle = latency(daemon).await;

    let (bulk, own) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut tasks: Vec<_> = (0..BULK).map(|_| read(daemon, LOADED, &bulk)).collect();
    let unread: Vec<_> = (0..UNREAD).map(|_| daemon.open(LOADED, head("/endless"), true).unwrap()).collect();
    let onset = latency(daemon).await;
    soon(async {
        while bulk.load(Ordering::Relaxed) < UNDER_WAY {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let loaded = latency(daemon).await;

    let before = bulk.load(Ordering::Relaxed);
    tasks.push(read(daemon, QUICK, &own));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (bulk, own) = (bulk.load(Ordering::Relaxed) - before, own.load(Ordering::Relaxed));
    println!(
        "{by:?}: half, nine tenths and all of {REQUESTS} requests take {idle:.1?} alone, {onset:.1?} as {BULK} bulk and \
         {UNREAD} unread exchanges begin, {loaded:.1?} beside them; one download got {} MiB in 1 s, {BULK} of the other \
         tunnel {} MiB",
        own / MIB as u64,
        bulk / MIB as u64
    );
    for task in tasks {
        assert!(!task.is_finished(), "{by:?}: a download broke");
        task.abort();
    }
    drop(unread);
    // The machine may pause any single one.
    assert!(onset[1] < LATE && loaded[1] < LATE, "{by:?}");
    // Turns by exchanges would give it a five-hundredth. Here the machine is the limit, not the path.
    assert!(own > bulk / 100, "{by:?}: {own} bytes against {bulk}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_are_fair_to_each_other() {
    for by in CARRIED {
        a_loaded_tunnel_leaves_the_other_its_latency(by).await;
    }
}
