//! Labels whose values are known beforehand. No label carries what a visitor or a client has sent, so the number of series
//! has a bound.

/// A label with a closed set of values.
pub(crate) trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Its values.
    const VALUES: &'static [&'static str];
    /// The index of this value.
    fn index(self) -> usize;
}

/// Declares a label as an enum. Each variant names its value.
macro_rules! label {
    (
        $(#[$about:meta])*
        $name:ident = $label:literal {
            $($(#[$doc:meta])* $variant:ident = $value:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $crate::observe::metrics::labels::Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use label;

/// The labels of a family, as a tuple.
pub(crate) trait Labels: Copy + Send + Sync + 'static {
    /// How many combinations of values there are.
    const COUNT: usize;
    /// The index of this combination.
    fn index(self) -> usize;
    /// The names and values of the combination with an index.
    fn at(index: usize) -> Vec<(&'static str, &'static str)>;
}

impl Labels for () {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }

    fn at(_index: usize) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl<A: Label> Labels for (A,) {
    const COUNT: usize = A::VALUES.len();

    fn index(self) -> usize {
        self.0.index()
    }

    fn at(index: usize) -> Vec<(&'static str, &'static str)> {
        vec![(A::NAME, A::VALUES[index])]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::VALUES.len() * B::VALUES.len();

    fn index(self) -> usize {
        self.0.index() * B::VALUES.len() + self.1.index()
    }

    fn at(index: usize) -> Vec<(&'static str, &'static str)> {
        let (first, second) = (index / B::VALUES.len(), index % B::VALUES.len());
        vec![(A::NAME, A::VALUES[first]), (B::NAME, B::VALUES[second])]
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    const COUNT: usize = A::VALUES.len() * <(B, C)>::COUNT;

    fn index(self) -> usize {
        self.0.index() * <(B, C)>::COUNT + (self.1, self.2).index()
    }

    fn at(index: usize) -> Vec<(&'static str, &'static str)> {
        let mut labels = vec![(A::NAME, A::VALUES[index / <(B, C)>::COUNT])];
        labels.extend(<(B, C)>::at(index % <(B, C)>::COUNT));
        labels
    }
}

label! {
    /// The visitor's version of HTTP.
    Version = "version" {
        /// HTTP/1.0.
        Http10 = "1.0",
        /// HTTP/1.1.
        Http11 = "1.1",
        /// HTTP/2.
        Http2 = "2",
        /// HTTP/3.
        Http3 = "3",
    }
}

impl From<http::Version> for Version {
    fn from(version: http::Version) -> Self {
        match version {
            http::Version::HTTP_3 => Self::Http3,
            http::Version::HTTP_2 => Self::Http2,
            http::Version::HTTP_11 => Self::Http11,
            _ => Self::Http10,
        }
    }
}

label! {
    /// The transport of a session.
    Transport = "transport" {
        /// QUIC.
        Quic = "quic",
        /// WebSocket.
        Ws = "ws",
        /// None: the daemon has answered by itself.
        None = "none",
    }
}

impl Transport {
    /// The transport with this name in the interface.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "quic" => Self::Quic,
            "ws" => Self::Ws,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_has_an_index_and_its_values() {
        type Both = (Version, Transport);
        assert_eq!(Both::COUNT, 12);
        let index = (Version::Http2, Transport::Ws).index();
        assert_eq!(Both::at(index), [("version", "2"), ("transport", "ws")]);
        let all: std::collections::HashSet<_> = (0..Both::COUNT).map(Both::at).collect();
        assert_eq!(all.len(), Both::COUNT);
        let index = (Transport::Quic, Version::Http3, Transport::None).index();
        let values: Vec<_> = <(Transport, Version, Transport)>::at(index).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["quic", "3", "none"]);
    }
}
