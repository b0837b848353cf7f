//! The visitors and their rates.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connector, Pool};
use crate::exchanges::{Body, ask, download, is, listen, talk, upload};
use crate::visit::{Visit, Why};
use crate::{PAUSE, Visits};

/// The longest time for a visit, without its wait for a connection of the pool.
const PATIENCE: Duration = Duration::from_secs(30);

/// The service's response to small requests.
const HELLO: &[u8] = b"hello";

/// The repeated kinds of visits, with their shares of the rate.
const KINDS: [(Kind, f64); 4] = [(Kind::Kept, 0.65), (Kind::Fresh, 0.25), (Kind::Download, 0.05), (Kind::Upload, 0.05)];

/// A kind of visit.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A small response over a kept connection. A host has at most a browser's number of them.
    Kept,
    /// A small response over a new connection.
    Fresh,
    /// A download that takes one second.
    Download,
    /// An upload that takes one second.
    Upload,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Fresh => "fresh",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// A kind of long-lived visit.
#[derive(Clone, Copy, Debug)]
enum Staying {
    /// A WebSocket.
    Talk,
    /// A stream of events.
    Listen,
}

impl Staying {
    fn name(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Listen => "listen",
        }
    }
}

/// A report on standard output, one line each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    /// A visit got its response or failed.
    Visit(&'a Visit),
    /// A request with this query failed and is repeated with another query.
    Repeated(&'a str),
    /// A long-lived visit ended cleanly.
    Told(&'static str),
    /// All visits that had begun are over, and all long-lived visits are connected.
    CaughtUp,
    /// The longest delay of a visit's start, in seconds.
    Late(f64),
}

impl Line<'_> {
    fn print(&self) {
        let mut out = std::io::stdout().lock();
        // The reader is gone: standard input will end, too.
        let _gone = serde_json::to_writer(&mut out, self).map_err(Into::into).and_then(|()| out.write_all(b"\n"));
    }
}

/// The running load.
struct Load {
    connector: Connector,
    pools: HashMap<String, Pool>,
    hosts: Vec<String>,
    stop: CancellationToken,
    staying: usize,
    next_query: AtomicU64,
    state: watch::Sender<State>,
}

/// Counts of the visits so far.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// Numbers of the visits that are under way.
    open: BTreeSet<u64>,
    /// The number of visits that wait for a connection of a pool.
    waiting: usize,
    /// The number of long-lived visits that are connected.
    here: usize,
}

/// Runs the load until standard input ends.
pub(crate) async fn run(args: Visits) -> anyhow::Result<()> {
    let load = Arc::new(Load {
        connector: Connector::new(args.address, &args.ca)?,
        pools: Pool::of(&args.hosts),
        stop: CancellationToken::new(),
        staying: 2 * args.staying,
        next_query: AtomicU64::new(0),
        state: watch::Sender::default(),
        hosts: args.hosts,
    });
    let mut visitors = JoinSet::new();
    for number in 0..args.staying {
        visitors.spawn(load.clone().stay(number, Staying::Talk));
        visitors.spawn(load.clone().stay(number, Staying::Listen));
    }
    for (kind, share) in KINDS {
        visitors.spawn(load.clone().keep_on(kind, args.rate * share));
    }

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        load.catch_up().await;
        Line::CaughtUp.print();
    }
    load.stop.cancel();
    // A panic of a visit ends the load with an error, since its report is missing.
    while let Some(ended) = visitors.join_next().await {
        ended?;
    }
    load.wait_for(|state| state.open.is_empty()).await;
    Ok(())
}

impl Load {
    async fn wait_for(&self, condition: impl Fn(&State) -> bool) {
        let mut state = self.state.subscribe();
        // Never an error: `self` owns the sender.
        let _never_closed = state.wait_for(|state| condition(state)).await;
    }

    /// Waits until all visits that have begun by now are over. No visit waits for a connection then, and all long-lived
    /// visits are connected.
    async fn catch_up(&self) {
        let begun = self.state.borrow().begun;
        self.wait_for(|state| state.open.first().is_none_or(|first| *first >= begun)).await;
        self.wait_for(|state| state.waiting == 0).await;
        self.wait_for(|state| state.here == self.staying).await;
    }

    /// Starts visits at a steady rate, each to the next host.
    async fn keep_on(self: Arc<Self>, kind: Kind, rate: f64) {
        let (mut due, mut late) = (Instant::now(), Duration::ZERO);
        while !self.stop.is_cancelled() {
            let behind = due.elapsed();
            late = late.max(behind);
            let mut visit = Visit::due(kind.name(), behind);
            let number = self.state.borrow().begun;
            self.state.send_modify(|state| {
                state.begun += 1;
                state.open.insert(number);
            });
            let host = number as usize % self.hosts.len();
            let load = self.clone();
            tokio::spawn(async move {
                let ended = load.visit(kind, &load.hosts[host], &mut visit).await;
                visit.ends(ended);
                Line::Visit(&visit).print();
                load.state.send_modify(|state| _ = state.open.remove(&number));
            });
            due += Duration::from_secs_f64((0.5 + fastrand::f64()) / rate);
            sleep_until(due).await;
        }
        Line::Late(late.as_secs_f64()).print();
    }

    async fn visit(&self, kind: Kind, host: &str, visit: &mut Visit) -> Result<(), Why> {
        let pool = &self.pools[host];
        let _turn = match kind {
            Kind::Kept => self.turn(pool).await,
            Kind::Fresh | Kind::Download | Kind::Upload => None,
        };
        visit.asks(false);
        let visit = async {
            match kind {
                Kind::Kept => self.kept(host, pool, visit).await,
                Kind::Fresh => self.fresh(host, &self.query()).await,
                Kind::Download => download(&self.connector, host).await,
                Kind::Upload => upload(&self.connector, host).await,
            }
        };
        timeout(PATIENCE, visit).await.unwrap_or(Err(Why::TimedOut))
    }

    async fn turn<'a>(&self, pool: &'a Pool) -> Option<SemaphorePermit<'a>> {
        self.state.send_modify(|state| state.waiting += 1);
        let turn = pool.turns.acquire().await;
        self.state.send_modify(|state| state.waiting -= 1);
        turn.ok()
    }

    /// Returns a query that no other request has.
    fn query(&self) -> String {
        self.next_query.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Sends a request over a kept connection. Repeats it only if the daemon closed that connection before the request
    /// arrived, as every visitor must expect (RFC 9112, section 9.5).
    async fn kept(&self, host: &str, pool: &Pool, visit: &mut Visit) -> Result<(), Why> {
        let query = self.query();
        let mut requests = match pool.take().await {
            Some(requests) => {
                visit.asks(true);
                requests
            }
            None => self.connector.http(host).await?,
        };
        match ask(&mut requests, Method::GET, host, &format!("/?{query}"), Body::default()).await {
            Ok(response) => {
                is(response, HELLO).await?;
                pool.keep(requests);
                Ok(())
            }
            Err(Why::BrokeOff(_)) if visit.reused => {
                Line::Repeated(&query).print();
                visit.asks(false);
                self.fresh(host, &self.query()).await
            }
            Err(why) => Err(why),
        }
    }

    async fn fresh(&self, host: &str, query: &str) -> Result<(), Why> {
        let mut requests = self.connector.http(host).await?;
        let response = ask(&mut requests, Method::GET, host, &format!("/?{query}"), Body::default()).await?;
        is(response, HELLO).await
    }

    /// Keeps one long-lived visit, which connects again each time it ends.
    async fn stay(self: Arc<Self>, number: usize, kind: Staying) {
        let host = &self.hosts[number % self.hosts.len()];
        while !self.stop.is_cancelled() {
            let mut visit = Visit::due(kind.name(), Duration::ZERO);
            visit.asks(false);
            let mut counted = false;
            let here = || {
                // The visit itself reports what happens after that.
                let mut answered = visit.clone();
                answered.ends(Ok(()));
                Line::Visit(&answered).print();
                self.state.send_modify(|state| state.here += 1);
                counted = true;
            };
            let ended = match kind {
                Staying::Talk => talk(&self.connector, host, &self.stop, here).await,
                Staying::Listen => listen(&self.connector, host, &self.stop, here).await,
            };
            if counted {
                self.state.send_modify(|state| state.here -= 1);
            }
            match ended {
                Ok(()) if self.stop.is_cancelled() => {}
                Ok(()) => Line::Told(kind.name()).print(),
                Err(why) => {
                    visit.ends(Err(why));
                    Line::Visit(&visit).print();
                    // A failing visit does not reconnect in a tight loop.
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
