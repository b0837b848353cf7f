//! The two text forms of metrics: OpenMetrics 1.0, and the older one of Prometheus (version 0.0.4), which more tools read.

/// OpenMetrics' media type.
const OPENMETRICS: &str = "application/openmetrics-text";

/// A text form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text, version 0.0.4.
    Prometheus,
}

impl Form {
    /// The form for a request with this Accept field. Only those who name OpenMetrics get it.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let ranges = accept.into_iter().flat_map(|accept| accept.split(','));
        let mut kinds = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
        if kinds.any(|kind| kind.eq_ignore_ascii_case(OPENMETRICS)) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The content type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The metrics in this form. `text` is OpenMetrics.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// Names counters and infos by their samples, as the older form wants it, and drops what it does not have.
fn to_prometheus(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 64);
    // The help of a family comes before its type, which decides the name.
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let help = help.take().map_or("", |(_, help)| help);
            for part in ["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"] {
                out.push_str(part);
            }
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_by_their_samples() {
        let text = "# HELP a A.\n# TYPE a counter\na_total{b=\"c\"} 1\n# HELP d D.\n# TYPE d info\nd_info{e=\"1\"} 1\n\
                    # HELP f F g.\n# TYPE f gauge\n# UNIT f seconds\nf 2\n# EOF\n";
        let expected = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n# HELP d_info D.\n\
                        # TYPE d_info gauge\nd_info{e=\"1\"} 1\n# HELP f F g.\n# TYPE f gauge\nf 2\n";
        assert_eq!(Form::Prometheus.of(text.to_owned()), expected);
        assert_eq!(Form::OpenMetrics.of(text.to_owned()), text);
    }

    #[test]
    fn openmetrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Form::accepted(Some(prometheus)), Form::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain"), Some("")] {
            assert_eq!(Form::accepted(other), Form::Prometheus);
        }
    }
}
