//! What the standard variables of OpenTelemetry say
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! A wrong value costs a warning and counts as if it were not set. An empty one is not set. Nothing is traced unless a variable
//! names a collector.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Uri};
use opentelemetry::KeyValue;
use percent_encoding::percent_decode_str;

use crate::sampler::{Root, Rule};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// The collector if `OTEL_TRACES_EXPORTER` asks for OTLP and no variable has an address.
const USUAL_ENDPOINT: &str = "http://localhost:4318";
/// What is appended to an address that is not of traces alone.
const TRACES_PATH: &str = "/v1/traces";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";

/// The most spans that may wait, whatever the variable says. One has about 2 KiB, so this is 128 MiB.
const MAX_QUEUE: usize = 65_536;

/// What was wrong, a line each. A line names the variable. It never has the value of a variable that may hold secrets.
pub type Warnings = Vec<String>;

/// Where spans go, and which.
#[derive(Debug)]
pub struct Settings {
    /// The collector's address for traces.
    pub(crate) endpoint: Uri,
    /// The authority to trust, in place of those of the system.
    pub(crate) certificate: Option<PathBuf>,
    /// Fields for each request to the collector, which may hold a key.
    pub(crate) headers: HashMap<String, String>,
    /// How long the collector may take for a batch, with all repetitions.
    pub(crate) timeout: Duration,
    /// Whether batches are compressed.
    pub(crate) gzip: bool,
    /// What the process says about itself.
    pub(crate) resource: Vec<KeyValue>,
    /// Which requests are recorded.
    pub(crate) rule: Rule,
    /// How spans wait.
    pub(crate) batch: Batch,
}

/// How spans wait for the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// How long a span waits at most until its batch is sent.
    pub(crate) delay: Duration,
    /// The most spans that wait. More are dropped.
    pub(crate) queue: usize,
    /// The most spans that are sent at once.
    pub(crate) size: usize,
}

impl Settings {
    /// Reads them for a program. `None` if nothing is to be traced. `variable` gives the value of a variable.
    pub fn read(service: &str, version: &str, variable: impl Fn(&str) -> Option<String>) -> (Option<Self>, Warnings) {
        let mut reader = Reader { variable, warnings: Vec::new() };
        let settings = reader.settings(service, version);
        (settings, reader.warnings)
    }
}

struct Reader<F> {
    variable: F,
    warnings: Warnings,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn settings(&mut self, service: &str, version: &str) -> Option<Settings> {
        if self.is_true("OTEL_SDK_DISABLED") {
            return None;
        }
        let (name, address) = self.collector()?;
        let is_of_traces = name == TRACES_ENDPOINT;
        let endpoint = match endpoint(&address, is_of_traces) {
            Ok(endpoint) => endpoint,
            Err(why) => {
                self.warn(name, &format!("{why}; no traces are exported"));
                return None;
            }
        };
        self.check_protocol();
        let queue = self.count("OTEL_BSP_MAX_QUEUE_SIZE", 2048).min(MAX_QUEUE);
        let batch = Batch {
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(Duration::from_secs(5)),
            queue,
            size: self.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
        };
        let export_limit = self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30));
        let timeout = self.of_traces("OTEL_EXPORTER_OTLP_TIMEOUT").map(|(name, _)| name);
        let timeout = timeout.and_then(|name| self.milliseconds(&name)).unwrap_or(Duration::from_secs(10));
        Some(Settings {
            endpoint,
            certificate: self.of_traces("OTEL_EXPORTER_OTLP_CERTIFICATE").map(|(_, path)| path.into()),
            headers: self.headers(),
            timeout: timeout.min(export_limit),
            gzip: self.gzip(),
            resource: self.resource(service, version),
            rule: self.rule(),
            batch,
        })
    }

    /// The collector's address and the variable that names it.
    fn collector(&mut self) -> Option<(&'static str, String)> {
        let exporter = self.get("OTEL_TRACES_EXPORTER");
        let exporters: Vec<&str> = exporter.as_deref().unwrap_or_default().split(',').map(str::trim).collect();
        let asks = exporters.contains(&"otlp");
        if exporter.is_some() && !asks {
            if exporters != ["none"] {
                self.warn("OTEL_TRACES_EXPORTER", "only \"otlp\" and \"none\" are known; no traces are exported");
            }
            return None;
        }
        for name in [TRACES_ENDPOINT, ENDPOINT] {
            if let Some(address) = self.get(name) {
                return Some((name, address));
            }
        }
        asks.then(|| (ENDPOINT, USUAL_ENDPOINT.to_owned()))
    }

    fn check_protocol(&mut self) {
        if let Some((name, protocol)) = self.of_traces("OTEL_EXPORTER_OTLP_PROTOCOL")
            && protocol != "http/protobuf"
        {
            self.warn(&name, &format!("\"{protocol}\" is not supported; the collector gets http/protobuf"));
        }
    }

    fn gzip(&mut self) -> bool {
        match self.of_traces("OTEL_EXPORTER_OTLP_COMPRESSION") {
            Some((_, name)) if name.eq_ignore_ascii_case("gzip") => true,
            Some((_, name)) if name.eq_ignore_ascii_case("none") => false,
            Some((variable, name)) => {
                self.warn(&variable, &format!("\"{name}\" is not supported; use \"gzip\" or \"none\""));
                false
            }
            None => false,
        }
    }

    fn headers(&mut self) -> HashMap<String, String> {
        let Some((variable, list)) = self.of_traces("OTEL_EXPORTER_OTLP_HEADERS") else { return HashMap::new() };
        let (pairs, wrong) =
            pairs(&list, |name, value| HeaderName::from_str(name).is_ok() && HeaderValue::from_str(value).is_ok());
        self.warn_of_pairs(&variable, &wrong);
        pairs.into_iter().collect()
    }

    fn resource(&mut self, service: &str, version: &str) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.version", version.to_owned()),
        ];
        if let Some(list) = self.get("OTEL_RESOURCE_ATTRIBUTES") {
            let (pairs, wrong) = pairs(&list, |name, _| !name.is_empty());
            self.warn_of_pairs("OTEL_RESOURCE_ATTRIBUTES", &wrong);
            attributes.extend(pairs.into_iter().map(|(name, value)| KeyValue::new(name, value)));
        }
        attributes.extend(self.get("OTEL_SERVICE_NAME").map(|name| KeyValue::new("service.name", name)));
        attributes
    }

    fn rule(&mut self) -> Rule {
        let Some(name) = self.get(SAMPLER) else { return Rule::DEFAULT };
        let (root, follows_parent) = match name.strip_prefix("parentbased_") {
            Some(root) => (root, true),
            None => (&*name, false),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::Ratio(self.ratio()),
            _ => {
                self.warn(SAMPLER, &format!("\"{name}\" is not supported; parentbased_always_on is used"));
                return Rule::DEFAULT;
            }
        };
        Rule { root, follows_parent }
    }

    fn ratio(&mut self) -> f64 {
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.get(ARGUMENT) else { return 1.0 };
        match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.warn(ARGUMENT, &format!("\"{text}\" is not a number from 0 to 1; 1 is used"));
                1.0
            }
        }
    }

    fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        let text = self.get(name)?;
        let time = text.parse().ok().filter(|time| *time > 0).map(Duration::from_millis);
        if time.is_none() {
            self.warn(name, &format!("\"{text}\" is not a number of milliseconds; the default is used"));
        }
        time
    }

    fn count(&mut self, name: &str, usual: usize) -> usize {
        let Some(text) = self.get(name) else { return usual };
        text.parse().ok().filter(|count| *count > 0).unwrap_or_else(|| {
            self.warn(name, &format!("\"{text}\" is not a number of spans; {usual} is used"));
            usual
        })
    }

    fn is_true(&mut self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().to_ascii_lowercase();
        if !matches!(&*value, "" | "true" | "false") {
            self.warn(name, "only \"true\" and \"false\" are known; false is used");
        }
        value == "true"
    }

    /// The value of the variable for traces, or else of the one for all signals, and its name.
    fn of_traces(&self, name: &str) -> Option<(String, String)> {
        let special = name.replacen("OTLP_", "OTLP_TRACES_", 1);
        [special, name.to_owned()].into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    /// The value of a variable that is set and not empty.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn warn(&mut self, name: &str, why: &str) {
        self.warnings.push(format!("{name}: {why}"));
    }

    /// Warns of parts of a list. The rest of it counts.
    fn warn_of_pairs(&mut self, name: &str, wrong: &[usize]) {
        if let Some(first) = wrong.first() {
            self.warn(name, &format!("part {first} is not NAME=VALUE; the rest of the list is used"));
        }
    }
}

/// The address for traces. Log lines name it, and requests have its host, so it must hold no password.
fn endpoint(address: &str, is_of_traces: bool) -> Result<Uri, &'static str> {
    const NOT_HTTP: &str = "the value is not an http:// or https:// address";
    let uri: Uri = address.parse().map_err(|_| NOT_HTTP)?;
    let authority = uri.authority().map_or("", Authority::as_str);
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.is_empty() {
        return Err(NOT_HTTP);
    }
    if authority.contains('@') {
        return Err("a password belongs into OTEL_EXPORTER_OTLP_HEADERS, not into the address");
    }
    if is_of_traces {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/');
    parts.path_and_query = format!("{path}{TRACES_PATH}").parse().ok();
    Uri::from_parts(parts).map_err(|_| NOT_HTTP)
}

/// The parts of `a=1,b=2`, with percent signs resolved, and the numbers of those that are not valid.
fn pairs(list: &str, is_valid: impl Fn(&str, &str) -> bool) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut pairs, mut wrong) = (Vec::new(), Vec::new());
    for (number, part) in (1..).zip(list.split(',')).filter(|(_, part)| !part.trim().is_empty()) {
        let pair = part.split_once('=').and_then(|(name, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((name.trim().to_owned(), value.into_owned()))
        });
        match pair {
            Some((name, value)) if is_valid(&name, &value) => pairs.push((name, value)),
            _ => wrong.push(number),
        }
    }
    (pairs, wrong)
}

#[cfg(test)]
mod tests;
