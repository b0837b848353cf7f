//! Settings that need a restart. Each part declares its own, and a reload compares them by this declaration.

/// Declares a struct of settings that are read once, at the start. Each field names its key in the configuration file.
/// `changed` lists the keys whose values differ.
macro_rules! startup {
    (
        $(#[$about:meta])*
        struct $name:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $key:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        impl $name {
            /// The configuration keys in which `next` differs.
            pub(crate) fn changed(&self, next: &Self) -> Vec<&'static str> {
                let keys = [$((self.$field != next.$field, $key)),*];
                keys.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key).collect()
            }
        }
    };
}

pub(crate) use startup;
