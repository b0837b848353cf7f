//! Which requests are recorded, as `OTEL_TRACES_SAMPLER` says.
//!
//! Visitors choose their trace ids and flags, so what they choose counts only up to a rate. Beyond it, a request is decided as
//! one without a parent: by a random number of ours in place of the visitor's id.

use opentelemetry::TraceId;

use crate::context::Parent;
use crate::limit::Limit;

/// How many requests a second are recorded because their senders want it. A person who debugs needs a few. What a
/// flood of them costs stays below what the queue of spans takes.
pub const FORCED_PER_SECOND: u32 = 10;

/// The choice for requests without a parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Root {
    /// Each is recorded.
    On,
    /// None is.
    Off,
    /// This share of them is, 0 to 1.
    Ratio(f64),
}

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rule {
    /// The choice for requests without a parent.
    pub(crate) root: Root,
    /// Whether a request with a parent is recorded if its sender records it.
    pub(crate) follows_parent: bool,
}

impl Rule {
    /// The standard's default: `parentbased_always_on`.
    pub(crate) const DEFAULT: Self = Self { root: Root::On, follows_parent: true };
}

/// Decides.
#[derive(Debug)]
pub(crate) struct Sampler {
    rule: Rule,
    forced: Limit,
}

impl Sampler {
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, forced: Limit::new(FORCED_PER_SECOND) }
    }

    /// Whether a request is recorded. Without a parent, `trace` is new.
    pub(crate) fn records(&self, parent: Option<&Parent>, trace: TraceId) -> bool {
        let Rule { root, follows_parent } = self.rule;
        let Some(parent) = parent else { return root.takes(part(trace)) };
        let wanted = if follows_parent { parent.is_sampled } else { root.takes(part(trace)) };
        wanted && (root.takes(fastrand::u64(..)) || self.forced.take())
    }
}

impl Root {
    /// Whether it takes a trace with this number.
    fn takes(self, number: u64) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(share) => (number as f64) < share * 2f64.powi(64),
        }
    }
}

/// The part of a trace id that decides, as in OpenTelemetry's own libraries. So parties with the same ratio take the same
/// traces.
fn part(trace: TraceId) -> u64 {
    u128::from_be_bytes(trace.to_bytes()) as u64
}

#[cfg(test)]
mod tests {
    use opentelemetry::SpanId;

    use super::*;

    fn parent(is_sampled: bool) -> Parent {
        Parent { trace: TraceId::from(1), span: SpanId::from(1), is_sampled }
    }

    fn recorded(rule: Rule, parent: Option<Parent>, requests: usize) -> usize {
        let sampler = Sampler::new(rule);
        let trace = || parent.map_or_else(|| TraceId::from(fastrand::u128(..)), |parent| parent.trace);
        (0..requests).filter(|_| sampler.records(parent.as_ref(), trace())).count()
    }

    #[test]
    fn the_root_sampler_decides_without_a_parent() {
        for follows_parent in [false, true] {
            assert_eq!(recorded(Rule { root: Root::On, follows_parent }, None, 100), 100);
            assert_eq!(recorded(Rule { root: Root::Off, follows_parent }, None, 100), 0);
            let half = recorded(Rule { root: Root::Ratio(0.5), follows_parent }, None, 10_000);
            assert!((4500..5500).contains(&half), "{half}");
        }
        assert_eq!(recorded(Rule { root: Root::Ratio(0.0), follows_parent: false }, None, 1000), 0);
        assert_eq!(recorded(Rule { root: Root::Ratio(1.0), follows_parent: false }, None, 1000), 1000);
    }

    #[test]
    fn a_parents_flag_counts_only_where_the_sampler_follows_it() {
        let follows = |root| Rule { root, follows_parent: true };
        let alone = |root| Rule { root, follows_parent: false };
        assert_eq!(recorded(follows(Root::On), Some(parent(true)), 100), 100);
        assert_eq!(recorded(follows(Root::On), Some(parent(false)), 100), 0);
        assert_eq!(recorded(alone(Root::On), Some(parent(false)), 100), 100);
        assert_eq!(recorded(alone(Root::Off), Some(parent(true)), 100), 0);
    }

    /// A trace id of 1 is below every ratio, and the flag is set: visitors can choose both.
    #[test]
    fn visitors_cannot_force_more_than_the_rate() {
        for rule in [
            Rule { root: Root::Off, follows_parent: true },
            Rule { root: Root::Ratio(1e-9), follows_parent: true },
            Rule { root: Root::Ratio(1e-9), follows_parent: false },
        ] {
            let recorded = recorded(rule, Some(parent(true)), 10_000);
            // The rate goes on while the test runs.
            assert!((10..20).contains(&recorded), "{rule:?}: {recorded}");
        }
    }
}
