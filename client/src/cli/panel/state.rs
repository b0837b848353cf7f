//! What the panel shows. It knows no terminal: events go in, lines come out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use cok_host::figures::duration;
use cok_host::styled::{Line, Style};

use super::super::overview::Place;
use super::requests::Requests;
use crate::event::{Event, TunnelHandle};

/// The width of the column of names.
const NAMES: usize = 17;
/// A terminal with fewer lines has none for the inspector's address.
const LOW: usize = 12;
/// The most lines of requests.
const MOST_REQUESTS: usize = 10;

/// Where the session stands.
#[derive(Debug)]
enum Session {
    Connecting,
    Online { since: Instant },
    Offline { reason: String, next_try: Instant, was_online: bool },
    Stopping { requests: usize, within: Duration },
    Stopped,
}

/// Where a tunnel stands.
#[derive(Debug)]
enum Standing {
    Opening,
    Online(String),
    Trouble(String),
}

/// The state of the client as the panel shows it.
#[derive(Debug)]
pub(super) struct State {
    program: String,
    server: String,
    /// The address of the inspector's page.
    inspector: Option<String>,
    session: Session,
    transport: Option<(&'static str, String)>,
    round_trip: Option<Duration>,
    tunnels: BTreeMap<TunnelHandle, Standing>,
    hint: Option<String>,
    requests: Requests,
    /// The seconds by which local time is ahead of UTC.
    offset: i64,
}

impl State {
    pub(super) fn new(program: &str, server: String, offset: i64, now: Instant) -> Self {
        Self {
            program: program.to_owned(),
            server,
            inspector: None,
            session: Session::Connecting,
            transport: None,
            round_trip: None,
            tunnels: BTreeMap::new(),
            hint: None,
            requests: Requests::new(now),
            offset,
        }
    }

    /// The same, with the address of the inspector's page.
    pub(super) fn with_inspector(self, inspector: Option<String>) -> Self {
        Self { inspector, ..self }
    }

    /// Takes an event in.
    pub(super) fn note(&mut self, event: &Event, now: Instant, at: SystemTime) {
        // Only a session brings these.
        if let Event::Connected { .. } | Event::NameTaken { .. } | Event::Refused { .. } | Event::Displaced { .. } =
            event
            && !matches!(self.session, Session::Online { .. } | Session::Stopping { .. })
        {
            self.session = Session::Online { since: now };
        }
        match event {
            Event::Connected { tunnel, transport, url, reason, .. } => {
                self.transport = Some((*transport, reason.clone()));
                self.tunnels.insert(*tunnel, Standing::Online(url.clone()));
            }
            Event::Disconnected { reason, retry_in, was_online } => {
                self.session =
                    Session::Offline { reason: reason.clone(), next_try: now + *retry_in, was_online: *was_online };
                self.transport = None;
            }
            Event::NameTaken { tunnel, name, reason, within, .. } => {
                let why = match name {
                    Some(name) => format!("the name \"{name}\" is in use by another client"),
                    None => reason.clone(),
                };
                self.trouble(*tunnel, format!("{why}; trying again for {}", duration(*within)));
            }
            Event::Refused { tunnel, reason, retry_in, .. } => {
                let then = retry_in.map(|wait| format!("; asking again in {}", duration(wait))).unwrap_or_default();
                self.trouble(*tunnel, format!("refused: {reason}{then}"));
            }
            Event::Displaced { tunnel, address, .. } => {
                let by = address.as_deref().unwrap_or("another place");
                self.trouble(*tunnel, format!("taken over by a client at {by}, with the same key and instance"));
            }
            Event::Stopping { requests, within, .. } => {
                self.session = Session::Stopping { requests: *requests, within: *within };
            }
            Event::BlockedHost { by, host, .. } => {
                self.hint = Some(format!("{by} refuses the host {host}: start again with --host-header rewrite"));
            }
            Event::Connecting { .. } | Event::Fallback { .. } => {}
            Event::RequestBegan { .. } | Event::RequestLasts { .. } | Event::RequestEnded { .. } => {
                self.requests.note(event, now, at);
            }
        }
    }

    /// Takes in the latest round trip to the server.
    pub(super) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.round_trip = round_trip;
    }

    /// The client has stopped.
    pub(super) fn stopped(&mut self) {
        self.session = Session::Stopped;
    }

    fn trouble(&mut self, tunnel: TunnelHandle, what: String) {
        self.tunnels.insert(tunnel, Standing::Trouble(what));
    }

    /// The lines for a terminal of this size. `places` are the tunnels that are open.
    pub(super) fn lines(&mut self, places: &[Place], (width, height): (usize, usize), now: Instant) -> Vec<Line> {
        // Standings of closed tunnels are of no use.
        self.tunnels.retain(|tunnel, _| places.iter().any(|place| place.tunnel == *tunnel));
        let mut lines = vec![
            Line::default().add(Style::Bold, &self.program).add(Style::Dim, "   (Ctrl-C stops it)"),
            self.session_line(now),
        ];
        let inspector = self.inspector.as_ref().filter(|_| height >= LOW);
        if inspector.is_none() {
            lines.insert(1, Line::default());
        }
        let mut server = named("Server").add(Style::Plain, &self.server);
        if let (Some(round_trip), Session::Online { .. }) = (self.round_trip, &self.session) {
            server = server.add(Style::Dim, format!(" ({} round trip)", duration(round_trip)));
        }
        lines.push(server);
        if let Some((name, reason)) = &self.transport {
            lines.push(named("Transport").add(Style::Plain, name).add(Style::Dim, format!(" ({reason})")));
        }
        if let Some(inspector) = inspector {
            lines.push(named("Inspector").add(Style::Plain, inspector));
        }
        let frame = lines.len() + 5 + usize::from(self.hint.is_some());
        lines.extend(self.tunnel_lines(places, height.saturating_sub(frame + 1).max(1)));
        if let Some(hint) = &self.hint {
            lines.push(named("Hint").add(Style::Notice, hint));
        }
        lines.extend(self.figure_lines(now));
        let room = height.saturating_sub(lines.len() + 3).min(MOST_REQUESTS);
        let requests = self.requests.lines(room, width, now, self.offset);
        if !requests.is_empty() {
            lines.extend([Line::default(), Line::default().add(Style::Bold, "HTTP requests")]);
            lines.extend(requests);
        }
        // The cursor stands below the last line.
        lines.truncate(height.saturating_sub(1));
        lines
    }

    fn session_line(&self, now: Instant) -> Line {
        let line = named("Session status");
        match &self.session {
            Session::Connecting => line.add(Style::Notice, format!("connecting to {}", self.server)),
            Session::Online { since } => {
                let online = now.saturating_duration_since(*since);
                let line = line.add(Style::Good, "online");
                // Seconds would redraw the panel all the time.
                match online.as_secs() / 60 {
                    0 => line,
                    minutes => line.add(Style::Dim, format!(" for {}", duration(Duration::from_secs(minutes * 60)))),
                }
            }
            Session::Offline { reason, next_try, was_online } => {
                let state = if *was_online { "offline" } else { "not connected yet" };
                let wait = next_try.saturating_duration_since(now);
                let then = match wait.as_secs() {
                    0 => String::new(),
                    seconds => format!(" (next try in {})", duration(Duration::from_secs(seconds))),
                };
                line.add(Style::Bad, state).add(Style::Dim, then).add(Style::Plain, format!(": {reason}"))
            }
            Session::Stopping { requests, within } => {
                let what = match requests {
                    0 => "stopping".to_owned(),
                    1 => format!("stopping: 1 request may finish within {}", duration(*within)),
                    many => format!("stopping: {many} requests may finish within {}", duration(*within)),
                };
                line.add(Style::Notice, what).add(Style::Dim, "   (Ctrl-C again stops at once)")
            }
            Session::Stopped => line.add(Style::Plain, "stopped"),
        }
    }

    fn tunnel_lines(&self, places: &[Place], most: usize) -> Vec<Line> {
        let is_up = matches!(self.session, Session::Online { .. } | Session::Stopping { .. });
        let mut lines: Vec<_> = places
            .iter()
            .map(|place| {
                let name = match &place.label {
                    Some(label) => format!("Tunnel {label}"),
                    None => "Tunnel".to_owned(),
                };
                let line = named(&name);
                match self.tunnels.get(&place.tunnel).unwrap_or(&Standing::Opening) {
                    Standing::Online(url) => line
                        .add(if is_up { Style::Link } else { Style::Dim }, url)
                        .add(Style::Plain, format!(" → {}", place.target)),
                    Standing::Opening => {
                        line.add(Style::Dim, "no address yet").add(Style::Plain, format!(" → {}", place.target))
                    }
                    Standing::Trouble(what) => line.add(Style::Bad, what),
                }
            })
            .collect();
        if lines.len() > most {
            let hidden = lines.len() - most + 1;
            lines.truncate(most - 1);
            lines.push(named("").add(Style::Dim, format!("and {hidden} more; the command status lists all")));
        }
        lines
    }

    fn figure_lines(&mut self, now: Instant) -> [Line; 2] {
        let figures = self.requests.rates.figures(now);
        let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
        let [middle, high] = figures.percentiles.unwrap_or_default().map(seconds);
        let [short, long] = figures.per_second.map(|rate| format!("{rate:.2}"));
        let values =
            [self.requests.rates.total.to_string(), self.requests.open().to_string(), short, long, middle, high];
        let (mut heads, mut row) = (named("Connections"), named(""));
        for (head, value) in ["ttl", "opn", "rt1", "rt5", "p50", "p90"].iter().zip(values) {
            heads = heads.column(Style::Dim, head, 7);
            row = row.column(Style::Plain, value, 7);
        }
        [heads, row]
    }
}

fn named(name: &str) -> Line {
    Line::default().column(Style::Plain, name, NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: &mut State, places: &[Place], height: usize, now: Instant) -> Vec<String> {
        let lines = state.lines(places, (100, height), now);
        lines.iter().map(|line| line.render(100, false).0.trim_end().to_owned()).collect()
    }

    #[test]
    fn what_was_never_online_is_not_connected_yet() {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut state = State::new("cok-client 0", "https://t.example".to_owned(), 0, now);
        let tunnel = TunnelHandle(0);
        let place = Place { tunnel, label: None, target: "http://localhost:3000".to_owned() };
        let places = [place];
        let status = |state: &mut State| shown(state, &places, 24, now)[2].clone();
        assert_eq!(status(&mut state), "Session status    connecting to https://t.example");
        let retry_in = Duration::from_secs(3);
        let mut off = Event::Disconnected { reason: "refused".to_owned(), retry_in, was_online: false };
        state.note(&off, now, at);
        assert_eq!(status(&mut state), "Session status    not connected yet (next try in 3 s): refused");
        let connected = Event::Connected {
            tunnel,
            label: None,
            transport: "quic",
            url: "https://a.t.example".to_owned(),
            session: "s".to_owned(),
            reason: "QUIC answered first".to_owned(),
        };
        state.note(&connected, now, at);
        state.set_round_trip(Some(Duration::from_millis(12)));
        let lines = shown(&mut state, &places, 24, now);
        assert_eq!(
            lines[2..6],
            [
                "Session status    online",
                "Server            https://t.example (12 ms round trip)",
                "Transport         quic (QUIC answered first)",
                "Tunnel            https://a.t.example → http://localhost:3000",
            ]
        );
        if let Event::Disconnected { was_online, .. } = &mut off {
            *was_online = true;
        }
        state.note(&off, now, at);
        assert!(status(&mut state).starts_with("Session status    offline"));
    }

    #[test]
    fn a_refused_tunnel_has_a_session() {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut state = State::new("cok-client 0", "https://t.example".to_owned(), 0, now);
        let (tunnel, reason) = (TunnelHandle(0), "lost".to_owned());
        let places = [Place { tunnel, label: None, target: "http://localhost:3000".to_owned() }];
        state.note(&Event::Disconnected { reason, retry_in: Duration::ZERO, was_online: true }, now, at);
        let (name, within) = (Some("a".to_owned()), Duration::from_secs(60));
        let taken = Event::NameTaken { tunnel, label: None, name, reason: "taken".to_owned(), within };
        state.note(&taken, now, at);
        let lines = shown(&mut state, &places, 24, now);
        assert_eq!(lines[2], "Session status    online");
        assert!(lines.iter().any(|line| line.contains("the name \"a\" is in use by another client")), "{lines:?}");
    }

    #[test]
    fn it_is_never_higher_than_the_terminal() {
        let (now, at) = (Instant::now(), SystemTime::now());
        let mut state = State::new("cok-client 0", "https://t.example".to_owned(), 0, now);
        let place =
            |number| Place { tunnel: TunnelHandle(number), label: Some(number.to_string()), target: "x".to_owned() };
        let places: Vec<_> = (0..30).map(place).collect();
        for request in 0..50 {
            let (tunnel, method, path) = (TunnelHandle(0), http::Method::GET, "/".to_owned());
            state.note(&Event::RequestBegan { tunnel, request, method, path, query: None }, now, at);
        }
        for height in 0..60 {
            let lines = shown(&mut state, &places, height, now);
            assert!(lines.len() < height.max(1), "{height}");
        }
        let lines = shown(&mut state, &places, 20, now);
        assert!(lines.iter().any(|line| line.contains("more; the command status lists all")), "{lines:?}");
    }
}
