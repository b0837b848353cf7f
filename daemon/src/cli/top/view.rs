//! What `cokd top` shows. It knows no terminal: keys go in, lines come out.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use cok_host::figures::{bytes, duration};
use cok_host::styled::{Line, Style};

use super::keys::Key;
use super::terminal::Size;
use crate::admin::wire::{Reachable, Status, Tunnel};
use crate::cli::tunnels::{age, key, none, rate, round_trip};

/// Lines above and below the rows: the daemon, a gap, the heading, and the keys.
const OTHER_LINES: usize = 4;
/// How much a page is less than the screen, so that a row stays in sight.
const OVERLAP: usize = 1;
/// The longest filter, in characters: no name is longer.
const LONGEST_FILTER: usize = 63;

/// What the user wants of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Quit,
    /// Stop the process.
    Suspend,
    /// End the session with this id.
    EndSession(String),
}

/// One column.
struct Column {
    title: &'static str,
    width: usize,
    /// Figures stand at the right, and the greatest come first.
    is_figure: bool,
    text: fn(&Tunnel, SystemTime) -> String,
    compare: fn(&Tunnel, &Tunnel) -> Ordering,
}

const COLUMNS: [Column; 11] = [
    Column {
        title: "NAME",
        width: 24,
        is_figure: false,
        text: |t, _| t.name.clone(),
        compare: |a, b| a.name.cmp(&b.name),
    },
    Column {
        title: "STATE",
        width: 7,
        is_figure: false,
        text: |t, _| t.state.as_str().to_owned(),
        compare: |a, b| a.state.cmp(&b.state),
    },
    Column {
        title: "REQ/S",
        width: 7,
        is_figure: true,
        text: |t, _| rate(t.traffic.requests_per_second),
        compare: |a, b| a.traffic.requests_per_second.total_cmp(&b.traffic.requests_per_second),
    },
    Column {
        title: "OPEN",
        width: 5,
        is_figure: true,
        text: |t, _| t.traffic.open_exchanges.to_string(),
        compare: |a, b| a.traffic.open_exchanges.cmp(&b.traffic.open_exchanges),
    },
    Column {
        title: "REQUESTS",
        width: 9,
        is_figure: true,
        text: |t, _| t.traffic.requests.to_string(),
        compare: |a, b| a.traffic.requests.cmp(&b.traffic.requests),
    },
    Column {
        title: "IN",
        width: 7,
        is_figure: true,
        text: |t, _| bytes(t.traffic.bytes_in),
        compare: |a, b| a.traffic.bytes_in.cmp(&b.traffic.bytes_in),
    },
    Column {
        title: "OUT",
        width: 7,
        is_figure: true,
        text: |t, _| bytes(t.traffic.bytes_out),
        compare: |a, b| a.traffic.bytes_out.cmp(&b.traffic.bytes_out),
    },
    Column {
        title: "RTT",
        width: 7,
        is_figure: true,
        text: |t, _| round_trip(t),
        compare: |a, b| a.traffic.round_trip_ms.unwrap_or(-1.0).total_cmp(&b.traffic.round_trip_ms.unwrap_or(-1.0)),
    },
    Column {
        title: "VIA",
        width: 4,
        is_figure: false,
        text: |t, _| t.transport.clone().unwrap_or_else(none),
        compare: |a, b| a.transport.cmp(&b.transport),
    },
    Column { title: "KEY", width: 16, is_figure: false, text: |t, _| key(t), compare: |a, b| key(a).cmp(&key(b)) },
    Column {
        title: "FOR",
        width: 12,
        is_figure: true,
        text: |t, now| duration(age(t, now)),
        compare: |a, b| b.since.0.cmp(&a.since.0),
    },
];

/// The column that it is sorted by at first: the rate.
const FIRST: usize = 2;

/// What the keys do at the moment.
#[derive(Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Rows,
    /// They write the filter.
    Filter,
    /// They say whether the session of this tunnel ends.
    Confirm { name: String, session: String },
}

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    status: Option<Status>,
    column: usize,
    is_reversed: bool,
    filter: String,
    /// The tunnel that is chosen.
    chosen: Option<String>,
    /// How many rows are above the screen, and how many fit.
    above: usize,
    room: usize,
    mode: Mode,
    said: String,
}

impl Default for View {
    fn default() -> Self {
        Self {
            status: None,
            column: FIRST,
            is_reversed: false,
            filter: String::new(),
            chosen: None,
            above: 0,
            room: 1,
            mode: Mode::Rows,
            said: String::new(),
        }
    }
}

impl View {
    /// Takes the daemon's status.
    pub(super) fn set_status(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// Says something in the last line, until the next key.
    pub(super) fn say(&mut self, text: String) {
        self.said = text;
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: Key, tunnels: &BTreeMap<String, Tunnel>) -> Option<Act> {
        self.said.clear();
        match (key, &self.mode) {
            (Key::Interrupt, _) => return Some(Act::Quit),
            (Key::Suspend, _) => return Some(Act::Suspend),
            (key, Mode::Rows) => return self.press_in_rows(key, tunnels),
            (Key::Character(c), Mode::Filter) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(c),
            (Key::Backspace, Mode::Filter) => drop(self.filter.pop()),
            (Key::Escape, Mode::Filter) => {
                self.filter.clear();
                self.mode = Mode::Rows;
            }
            (Key::Character('y' | 'Y'), Mode::Confirm { .. }) => {
                if let Mode::Confirm { session, .. } = std::mem::take(&mut self.mode) {
                    return Some(Act::EndSession(session));
                }
            }
            (Key::Enter, Mode::Filter) | (_, Mode::Confirm { .. }) => self.mode = Mode::Rows,
            (_, Mode::Filter) => {}
        }
        None
    }

    fn press_in_rows(&mut self, key: Key, tunnels: &BTreeMap<String, Tunnel>) -> Option<Act> {
        let page = self.room.saturating_sub(OVERLAP).max(1);
        match key {
            Key::Character('q') => return Some(Act::Quit),
            Key::Character('s') => (self.column, self.is_reversed) = ((self.column + 1) % COLUMNS.len(), false),
            Key::Character('S') => {
                (self.column, self.is_reversed) = ((self.column + COLUMNS.len() - 1) % COLUMNS.len(), false);
            }
            Key::Character('r') => self.is_reversed ^= true,
            Key::Character('/') => self.mode = Mode::Filter,
            Key::Character('t') => {
                let chosen = self.chosen.as_ref().and_then(|name| tunnels.get(name));
                match chosen.and_then(|tunnel| Some((tunnel.name.clone(), tunnel.session.clone()?))) {
                    Some((name, session)) => self.mode = Mode::Confirm { name, session },
                    None => self.say("choose a tunnel that is online with the arrows first".to_owned()),
                }
            }
            Key::Up => self.choose(tunnels, |at| at.saturating_sub(1)),
            Key::Down => self.choose(tunnels, |at| at + 1),
            Key::PageUp => self.choose(tunnels, |at| at.saturating_sub(page)),
            Key::PageDown => self.choose(tunnels, |at| at + page),
            Key::Home => self.choose(tunnels, |_| 0),
            Key::End => self.choose(tunnels, |_| usize::MAX),
            Key::Escape => self.chosen = None,
            _ => {}
        }
        None
    }

    /// Chooses another row. While none is chosen, a step goes from above the first one.
    fn choose(&mut self, tunnels: &BTreeMap<String, Tunnel>, step: impl Fn(usize) -> usize) {
        let rows = self.rows(tunnels);
        let chosen = self.chosen.as_ref().and_then(|name| rows.iter().position(|tunnel| tunnel.name == *name));
        let next = chosen.map_or_else(|| step(0).saturating_sub(1), &step).min(rows.len().saturating_sub(1));
        self.chosen = rows.get(next).map(|tunnel| tunnel.name.clone());
    }

    /// The tunnels that match the filter, in their order.
    fn rows<'a>(&self, tunnels: &'a BTreeMap<String, Tunnel>) -> Vec<&'a Tunnel> {
        let wanted = self.filter.to_lowercase();
        let matches = |tunnel: &&Tunnel| {
            tunnel.name.contains(&wanted)
                || tunnel.key_name.as_ref().unwrap_or(&tunnel.key_id).to_lowercase().contains(&wanted)
                || tunnel.client_address.as_ref().is_some_and(|address| address.contains(&wanted))
        };
        let mut rows: Vec<_> = tunnels.values().filter(matches).collect();
        let Column { compare, is_figure, .. } = COLUMNS[self.column];
        rows.sort_by(|one, other| {
            let order = compare(one, other);
            let order = if is_figure == self.is_reversed { order } else { order.reverse() };
            // Those that can't be reached come last.
            (one.state > Reachable::Silent).cmp(&(other.state > Reachable::Silent)).then(order)
        });
        rows
    }

    /// The lines of a screen of this size.
    pub(super) fn lines(&mut self, tunnels: &BTreeMap<String, Tunnel>, size: Size, now: SystemTime) -> Vec<Line> {
        let rows = self.rows(tunnels);
        self.room = size.rows.saturating_sub(OTHER_LINES).max(1);
        let chosen = self.chosen.as_ref().and_then(|name| rows.iter().position(|tunnel| tunnel.name == *name));
        if let Some(at) = chosen {
            self.above = self.above.clamp((at + 1).saturating_sub(self.room), at);
        }
        self.above = self.above.min(rows.len().saturating_sub(self.room));
        let mut lines = vec![self.summary(tunnels), Line::default(), self.heading()];
        let shown = rows.iter().enumerate().skip(self.above).take(self.room);
        lines.extend(shown.map(|(at, tunnel)| row(tunnel, now, chosen == Some(at), size.columns)));
        if rows.is_empty() {
            let why = if tunnels.is_empty() { "no tunnels" } else { "no tunnel matches the filter" };
            lines.push(Line::default().add(Style::Dim, why));
        }
        // The keys stay at the bottom.
        lines.resize(size.rows.saturating_sub(1).max(lines.len()), Line::default());
        lines.push(self.last_line(rows.len(), tunnels.len()));
        lines
    }

    fn summary(&self, tunnels: &BTreeMap<String, Tunnel>) -> Line {
        let Some(status) = &self.status else { return Line::default().add(Style::Bold, "cokd") };
        // The sum of nothing would be -0.
        let per_second = tunnels.values().fold(0.0, |all, tunnel| all + tunnel.traffic.requests_per_second);
        let line = Line::default().add(Style::Bold, &status.domain).add(Style::Plain, "  ");
        let line = match &status.health.why {
            None => line.add(Style::Good, "ready"),
            Some(why) => line.add(Style::Bad, format!("not ready: {why}")),
        };
        line.add(
            Style::Plain,
            format!(
                "  up {}  {} tunnels, {} away  {} sessions  {} open  {} requests/s",
                duration(Duration::from_secs(status.uptime_seconds)),
                status.tunnels.online + status.tunnels.silent,
                status.tunnels.away,
                status.sessions,
                status.open_exchanges,
                rate(per_second),
            ),
        )
    }

    fn heading(&self) -> Line {
        COLUMNS.iter().enumerate().fold(Line::default(), |line, (at, column)| {
            let mark = match (at == self.column, column.is_figure == self.is_reversed) {
                (false, _) => "",
                (true, true) => "↑",
                (true, false) => "↓",
            };
            let title = format!("{}{mark}", column.title);
            let style = if at == self.column { Style::Bold } else { Style::Dim };
            if column.is_figure {
                line.right(style, title, column.width)
            } else {
                line.column(style, title, column.width)
            }
        })
    }

    fn last_line(&self, shown: usize, all: usize) -> Line {
        let line = Line::default();
        match &self.mode {
            Mode::Filter => line.add(Style::Bold, "filter: ").add(Style::Plain, &self.filter).add(Style::Dim, "_"),
            Mode::Confirm { name, .. } => {
                line.add(Style::Bad, format!("end the session of {name}? y ends it, any other key does not"))
            }
            Mode::Rows if !self.said.is_empty() => line.add(Style::Notice, &self.said),
            Mode::Rows => {
                let filter = if self.filter.is_empty() { String::new() } else { format!(" match {:?}", self.filter) };
                let count = if shown == all { format!("{all}") } else { format!("{shown} of {all}") };
                line.add(Style::Dim, "q quit  s sort  r reverse  / filter  ↑↓ choose  t end session  ")
                    .add(Style::Plain, format!("{count}{filter}"))
            }
        }
    }
}

/// The row of a tunnel.
fn row(tunnel: &Tunnel, now: SystemTime, is_chosen: bool, columns: usize) -> Line {
    let usual = match (is_chosen, tunnel.state) {
        (true, _) => Style::Chosen,
        (false, Reachable::Online) => Style::Plain,
        (false, Reachable::Silent) => Style::Notice,
        (false, Reachable::Away | Reachable::Closed) => Style::Dim,
    };
    let line = COLUMNS.iter().fold(Line::default(), |line, column| {
        let text = (column.text)(tunnel, now);
        if column.is_figure { line.right(usual, text, column.width) } else { line.column(usual, text, column.width) }
    });
    let missing = columns.saturating_sub(line.width());
    if is_chosen { line.add(usual, " ".repeat(missing)) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::Traffic;
    use crate::admission::wire::Moment;

    const SIZE: Size = Size { columns: 200, rows: 8 };

    fn tunnel(name: &str, per_second: f64, state: Reachable) -> (String, Tunnel) {
        let tunnel = Tunnel {
            name: name.to_owned(),
            url: format!("https://{name}.tunnel.test"),
            state,
            since: Moment(SystemTime::UNIX_EPOCH),
            key_id: "k".to_owned(),
            key_name: Some("laptop\u{1b}[2J".to_owned()),
            session: (state == Reachable::Online).then(|| format!("session-{name}")),
            transport: Some("ws".to_owned()),
            client_version: None,
            client_address: None,
            traffic: Traffic { requests_per_second: per_second, ..Traffic::default() },
        };
        (name.to_owned(), tunnel)
    }

    fn tunnels() -> BTreeMap<String, Tunnel> {
        let online = [("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 0.5), ("e", 0.25)];
        let online = online.into_iter().map(|(name, rate)| tunnel(name, rate, Reachable::Online));
        online.chain([tunnel("z", 9.0, Reachable::Away)]).collect()
    }

    fn text(view: &mut View) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let lines = view.lines(&tunnels(), SIZE, now);
        lines.iter().map(|line| line.render(SIZE.columns, false).0.trim_end().to_owned()).collect()
    }

    fn names(view: &mut View) -> String {
        text(view)[3..7].iter().filter_map(|line| line.chars().next()).collect()
    }

    fn press(view: &mut View, keys: &[Key]) -> Option<Act> {
        keys.iter().fold(None, |_, key| view.press(*key, &tunnels()))
    }

    #[test]
    fn the_busiest_come_first_and_the_screen_scrolls() {
        let mut view = View::default();
        assert_eq!(names(&mut view), "bcad");
        let shown = text(&mut view);
        assert_eq!(shown.len(), SIZE.rows);
        assert!(shown[2].contains("REQ/S↓") && shown[3].contains("laptop\\u{1b}[2J"), "{shown:#?}");
        press(&mut view, &[Key::End]);
        assert_eq!(names(&mut view), "adez", "those that can't be reached come last");
        press(&mut view, &[Key::Home]);
        assert_eq!(names(&mut view), "bcad");
        press(&mut view, &[Key::Character('r')]);
        assert_eq!(names(&mut view), "dacb", "the chosen one stays in sight");
        press(&mut view, &[Key::Escape, Key::Character('S'), Key::Character('S')]);
        view.above = 0;
        assert_eq!(names(&mut view), "abcd");
    }

    #[test]
    fn a_filter_leaves_what_matches() {
        let mut view = View::default();
        press(&mut view, &[Key::Character('/'), Key::Character('b'), Key::Character('q'), Key::Backspace]);
        assert!(text(&mut view)[7].starts_with("filter: b"));
        press(&mut view, &[Key::Enter]);
        assert_eq!(names(&mut view), "b");
        assert!(text(&mut view)[7].ends_with("1 of 6 match \"b\""));
        press(&mut view, &[Key::Character('/'), Key::Escape]);
        assert_eq!(names(&mut view), "bcad");
    }

    #[test]
    fn a_session_ends_only_after_a_yes() {
        let mut view = View::default();
        let t = Key::Character('t');
        assert_eq!(press(&mut view, &[t]), None);
        assert!(text(&mut view)[7].starts_with("choose a tunnel"));
        assert_eq!(press(&mut view, &[Key::Down, t, Key::Character('n')]), None);
        assert_eq!(press(&mut view, &[Key::Down, t]), None);
        assert!(text(&mut view)[7].starts_with("end the session of c?"));
        assert_eq!(press(&mut view, &[Key::Character('y')]), Some(Act::EndSession("session-c".to_owned())));
        assert_eq!(press(&mut view, &[Key::Character('q')]), Some(Act::Quit));
    }
}
