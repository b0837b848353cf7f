//! What is logged. A program that runs can change it.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The longest filter, in bytes.
const LONGEST: usize = 1024;

/// The filter of the process, once it logs.
static RUNNING: OnceLock<Running> = OnceLock::new();

#[derive(Debug)]
struct Running {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter that the process began with.
    first: String,
    now: Mutex<String>,
}

/// Why a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is no filter.
    #[error("{0:?} is no log filter: {1}; say for example debug, or info,cokd::edge=debug")]
    Invalid(String, String),
    /// The process does not log.
    #[error("this process does not log")]
    NoLog,
}

/// A layer for the filter that the process begins with. `RUST_LOG` beats `default`.
pub(super) fn layer(default: &str) -> reload::Layer<EnvFilter, Registry> {
    let given = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let given = given.and_then(|text| EnvFilter::try_new(&text).ok().map(|filter| (text, filter)));
    let (first, filter) = given.unwrap_or_else(|| (default.to_owned(), own_filter(default)));
    let (layer, handle) = reload::Layer::new(filter);
    let now = Mutex::new(first.clone());
    let _second = RUNNING.set(Running { handle, first, now });
    layer
}

/// The filter that counts now, and the one that the process began with.
pub fn filters() -> Result<(String, String), FilterError> {
    let running = RUNNING.get().ok_or(FilterError::NoLog)?;
    Ok((running.now.lock().clone(), running.first.clone()))
}

/// Changes the filter; `None` stands for the one that the process began with.
pub fn set_filter(text: Option<&str>) -> Result<(), FilterError> {
    let running = RUNNING.get().ok_or(FilterError::NoLog)?;
    let text = text.map_or_else(|| Ok(running.first.clone()), parse_filter)?;
    let mut now = running.now.lock();
    running.handle.reload(own_filter(&text)).map_err(|_| FilterError::NoLog)?;
    *now = text;
    Ok(())
}

/// Checks a filter: levels such as `info`, and `target=level` for single parts, separated by commas. Returns it without spaces.
pub fn parse_filter(text: &str) -> Result<String, FilterError> {
    let invalid = |why: String| {
        let shown: String = text.chars().take(100).collect();
        Err(FilterError::Invalid(shown, why))
    };
    if text.len() > LONGEST {
        return invalid(format!("it is longer than {LONGEST} bytes"));
    }
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let level = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
        // The library takes a word that is no level for a target, and logs everything of it.
        if level.is_empty() || level.parse::<LevelFilter>().is_err() || level.parse::<usize>().is_ok() {
            return invalid(format!("{level:?} is no level (off, error, warn, info, debug, trace)"));
        }
    }
    let text = directives.join(",");
    match EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(error) => invalid(error.to_string()),
    }
}

/// The filter without `RUST_LOG`. quinn-udp warns of each kind of datagram that the system does not send, such as one that
/// is too large for the path. QUIC notices by itself, and the reason of its failure is in the log.
fn own_filter(text: &str) -> EnvFilter {
    if text.contains("quinn_udp") { EnvFilter::new(text) } else { EnvFilter::new(format!("{text},quinn_udp=error")) }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn warnings_of_the_library_for_sockets_are_left_out() {
        let subscriber = tracing_subscriber::registry().with(own_filter("info"));
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(target: "quinn_udp", tracing::Level::WARN));
            assert!(!tracing::enabled!(target: "quinn_udp::imp", tracing::Level::WARN));
            assert!(tracing::enabled!(target: "quinn_udp", tracing::Level::ERROR));
            assert!(tracing::enabled!(target: "quinn", tracing::Level::WARN));
        });
    }

    #[test]
    fn a_filter_is_levels_and_targets() {
        for text in ["info", "DEBUG", "warn,cokd=debug", "off", "info, cokd::edge=trace"] {
            assert_eq!(parse_filter(text), Ok(text.replace(' ', "")), "{text}");
        }
        for text in
            ["", "wran", "info,", "info,cokd", "cokd=loud", "3", "cokd=3", "[span]=info,\u{1b}", &"a".repeat(2000)]
        {
            let error = parse_filter(text).unwrap_err().to_string();
            assert!(error.contains("is no log filter") && error.len() < 400, "{text}: {error}");
            assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
        }
    }
}
