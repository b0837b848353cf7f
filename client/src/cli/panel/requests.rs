//! The requests that the panel shows: the latest, and those that last.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use cok_host::figures::{bytes, duration, unix_seconds};
use cok_host::styled::{Line, Style};

use super::rates::Rates;
use crate::event::{Event, Lasting};
use crate::text::path_text;

/// The most ended requests that are kept.
const KEPT: usize = 100;
/// A request that is open for so long stays in sight.
const LONG: Duration = Duration::from_secs(1);
/// The width of a method's column. The longest usual one is OPTIONS.
const METHOD: usize = 7;
/// The width of the columns of the status and the duration.
const FIGURES: usize = 6 + 12;
/// The width of the columns before the path: the time and the method.
const HEAD: usize = 9 + METHOD + 1;
/// The width that a path has in any case.
const LEAST_PATH: usize = 20;

/// A request.
#[derive(Debug)]
struct Entry {
    /// In which order it came.
    number: u64,
    at: SystemTime,
    method: String,
    path: String,
    began: Instant,
    what: Option<(Lasting, u16)>,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    status: Option<u16>,
    time: Duration,
    bytes: u64,
    failure: Option<String>,
}

/// The requests of all tunnels.
#[derive(Debug)]
pub(super) struct Requests {
    open: HashMap<u64, Entry>,
    ended: VecDeque<Entry>,
    pub(super) rates: Rates,
}

impl Requests {
    pub(super) fn new(now: Instant) -> Self {
        Self { open: HashMap::new(), ended: VecDeque::new(), rates: Rates::new(now) }
    }

    /// The number of open requests.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes the event of a request in.
    pub(super) fn note(&mut self, event: &Event, now: Instant, at: SystemTime) {
        match event {
            Event::RequestBegan { request, method, path, .. } => {
                self.rates.began(now);
                let entry = Entry {
                    number: *request,
                    at,
                    method: method.to_string(),
                    path: path_text(path).into_owned(),
                    began: now,
                    what: None,
                    ended: None,
                };
                self.open.insert(*request, entry);
            }
            Event::RequestLasts { request, what, status, .. } => {
                if let Some(entry) = self.open.get_mut(request) {
                    entry.what = Some((what.clone(), *status));
                }
            }
            Event::RequestEnded { request, status, bytes, time, complete, failure, .. } => {
                let Some(mut entry) = self.open.remove(request) else { return };
                if entry.what.is_none() {
                    self.rates.took(*time);
                }
                let failure = failure.clone().or_else(|| (!complete).then(|| "broken off".to_owned()));
                entry.ended = Some(Ended { status: *status, time: *time, bytes: *bytes, failure });
                if self.ended.len() == KEPT {
                    self.ended.pop_front();
                }
                self.ended.push_back(entry);
            }
            _ => {}
        }
    }

    /// The lines of the latest requests, the newest first. Those that last keep up to half of the lines.
    pub(super) fn lines(&self, most: usize, width: usize, now: Instant, offset: i64) -> Vec<Line> {
        let lasts = |entry: &&Entry| entry.what.is_some() || now.saturating_duration_since(entry.began) >= LONG;
        let newest_first =
            |entries: &mut Vec<&Entry>| entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
        let (mut shown, mut others): (Vec<&Entry>, Vec<&Entry>) = self.open.values().partition(lasts);
        newest_first(&mut shown);
        others.extend(&self.ended);
        newest_first(&mut others);
        let reserved = most.saturating_sub(others.len()).max(most / 2);
        shown.truncate(reserved);
        others.truncate(most - shown.len());
        shown.extend(others);
        newest_first(&mut shown);
        // Short paths leave room for what stands behind them, such as the reason of a failure.
        let widest = |of: fn(&Entry) -> Line| shown.iter().map(|entry| of(entry).width()).max().unwrap_or(0);
        let (path, tail) = (widest(|entry| Line::default().add(Style::Plain, &entry.path)), widest(Entry::tail));
        let room = width.saturating_sub(1 + HEAD + FIGURES + 1 + tail);
        let path = path.min(room.max(LEAST_PATH));
        shown.into_iter().map(|entry| entry.line(path, now, offset)).collect()
    }
}

impl Entry {
    fn line(&self, path: usize, now: Instant, offset: i64) -> Line {
        let line = Line::default()
            .add(Style::Dim, clock(self.at, offset))
            .add(Style::Plain, " ")
            .column(Style::Plain, &self.method, METHOD)
            .column(Style::Plain, &self.path, path);
        let Some(ended) = &self.ended else {
            let open = duration(now.saturating_duration_since(self.began));
            let status = self.what.as_ref().map(|(_, status)| status.to_string()).unwrap_or_default();
            return line.column(Style::Good, status, 5).column(Style::Notice, open, 11).then(self.tail());
        };
        let style = match ended.status {
            None | Some(500..) => Style::Bad,
            Some(400..) => Style::Notice,
            Some(_) => Style::Good,
        };
        let status = ended.status.map_or_else(|| "–".to_owned(), |status| status.to_string());
        line.column(style, status, 5).column(Style::Plain, duration(ended.time), 11).then(self.tail())
    }

    /// What stands behind the figures: what it is, or how it has ended.
    fn tail(&self) -> Line {
        let line = Line::default();
        match (&self.ended, &self.what) {
            (None, Some((what, _))) => line.add(Style::Notice, format!("{what}, open")),
            (None, None) => line.add(Style::Notice, "open"),
            (Some(Ended { failure: Some(failure), .. }), _) => line.add(Style::Bad, failure),
            (Some(ended), _) => line.add(Style::Plain, bytes(ended.bytes)),
        }
    }
}

/// The time of day, `offset` seconds ahead of UTC.
fn clock(at: SystemTime, offset: i64) -> String {
    let seconds = (unix_seconds(at).cast_signed() + offset).rem_euclid(24 * 3600);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::event::TunnelHandle;

    const TUNNEL: TunnelHandle = TunnelHandle(0);

    fn began(request: u64, path: &str) -> Event {
        Event::RequestBegan { tunnel: TUNNEL, request, method: Method::GET, path: path.to_owned(), query: None }
    }

    fn ended(request: u64, failure: Option<&str>) -> Event {
        Event::RequestEnded {
            tunnel: TUNNEL,
            request,
            status: failure.is_none().then_some(200),
            bytes: 1234,
            received: 0,
            time: Duration::from_millis(12),
            complete: failure.is_none(),
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn streams_stay_in_sight_while_requests_pass() {
        let (start, at) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(3661));
        let mut requests = Requests::new(start);
        requests.note(&began(0, "/ws"), start, at);
        let what = Lasting::WebSocket;
        let lasts = Event::RequestLasts { tunnel: TUNNEL, request: 0, what, status: 101, after: Duration::ZERO };
        requests.note(&lasts, start, at);
        for number in 1..=2 * KEPT as u64 {
            requests.note(&began(number, "/"), start, at);
            requests.note(&ended(number, None), start, at);
        }
        requests.note(&began(1000, "/x?"), start, at);
        requests.note(&ended(1000, Some("cannot connect to [::1]:1")), start, at);
        let shown: Vec<_> = requests
            .lines(3, 70, start + Duration::from_secs(5), 3600)
            .iter()
            .map(|line| line.render(90, false).0)
            .collect();
        assert_eq!(
            shown,
            [
                "02:01:01 GET     /x? –     12 ms       cannot connect to [::1]:1",
                "02:01:01 GET     /   200   12 ms       1.2 kB",
                "02:01:01 GET     /ws 101   5 s         WebSocket, open",
            ]
        );
        assert_eq!((requests.open(), requests.rates.total), (1, 2 * KEPT as u64 + 2));
        // A long path leaves room for the reason of a failure.
        requests.note(&began(1001, &"/long".repeat(30)), start, at);
        let lines = requests.lines(9, 90, start, 0);
        assert!(lines.iter().any(|line| line.render(89, false).0.ends_with("cannot connect to [::1]:1")), "{lines:?}");
    }
}
