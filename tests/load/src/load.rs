//! Who visits, and how often.

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

/// How long a visit may take from when it has its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the service answers to small requests.
const HELLO: &[u8] = b"hello";

/// The kinds of visits that come again and again, with their shares of all.
const KINDS: [(Kind, f64); 4] = [(Kind::Kept, 0.65), (Kind::Fresh, 0.25), (Kind::Download, 0.05), (Kind::Upload, 0.05)];

/// What a visit is about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A small answer, over a connection that is kept: of those there are no more for a name than a browser has.
    Kept,
    /// A small answer, over a connection of its own.
    Fresh,
    /// A download of a second.
    Download,
    /// An upload of a second.
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

/// What somebody stays for.
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

/// What is told about the load, a line each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    /// Somebody was answered, or failed.
    Visit(&'a Visit),
    /// This query was asked and is asked again, by another query.
    Repeated(&'a str),
    /// One of those who stay was told that it is over.
    Told(&'static str),
    /// All that had begun is over, and those who stay are here.
    CaughtUp,
    /// By how many seconds a visit was later than it was to be, at most.
    Late(f64),
}

impl Line<'_> {
    fn print(&self) {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the end of standard input is near.
        let _gone = serde_json::to_writer(&mut out, self).map_err(Into::into).and_then(|()| out.write_all(b"\n"));
    }
}

/// The load as it runs.
struct Load {
    connector: Connector,
    pools: HashMap<String, Pool>,
    hosts: Vec<String>,
    stop: CancellationToken,
    staying: usize,
    next_query: AtomicU64,
    state: watch::Sender<State>,
}

/// What has come of it so far.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    /// Numbers of visits that are not over.
    open: BTreeSet<u64>,
    /// How many wait for one of a browser's connections.
    waiting: usize,
    /// How many of those who stay are here.
    here: usize,
}

/// Visits until standard input ends.
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
    // Also when one has panicked, and then with an error, since what it had to say is missing.
    while let Some(ended) = visitors.join_next().await {
        ended?;
    }
    load.wait_for(|state| state.open.is_empty()).await;
    Ok(())
}

impl Load {
    async fn wait_for(&self, condition: impl Fn(&State) -> bool) {
        let mut state = self.state.subscribe();
        // Its other end is in `self`.
        let _never_closed = state.wait_for(|state| condition(state)).await;
    }

    /// Waits until all visits that have begun by now are over, nobody else waits for a connection, and those who stay
    /// are here.
    async fn catch_up(&self) {
        let begun = self.state.borrow().begun;
        self.wait_for(|state| state.open.first().is_none_or(|first| *first >= begun)).await;
        self.wait_for(|state| state.waiting == 0).await;
        self.wait_for(|state| state.here == self.staying).await;
    }

    /// Has somebody come again and again, each time somewhere else.
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

    /// One of its own for each time that something is asked.
    fn query(&self) -> String {
        self.next_query.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Asks over a connection that is kept. Nothing is asked again but what a visitor has to expect: that such a
    /// connection is over by the time that the next request gets there (RFC 9112, section 9.5).
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

    /// Has somebody come who stays, and comes again each time that it is over.
    async fn stay(self: Arc<Self>, number: usize, kind: Staying) {
        let host = &self.hosts[number % self.hosts.len()];
        while !self.stop.is_cancelled() {
            let mut visit = Visit::due(kind.name(), Duration::ZERO);
            visit.asks(false);
            let mut counted = false;
            let here = || {
                // What becomes of it after that is another matter.
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
                    // Nobody comes again and again at once.
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
