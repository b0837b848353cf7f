//! The section `[access_log]`.

use std::path::{Path, PathBuf};

use cok_host::settings::{Section, got};

use crate::observe::{AccessLogConfig as Config, Destination};

/// Reads the section.
pub(super) fn access_log(mut section: Section<'_>) -> Config {
    let usual = Config::default();
    let to =
        section.optional("to", "\"off\", \"journal\", \"stderr\" or the whole path of a file", |text| match text {
            "off" => Ok(None),
            "journal" => Ok(Some(Destination::Journal)),
            "stderr" => Ok(Some(Destination::StandardError)),
            path if Path::new(path).is_absolute() && !path.contains('\0') => {
                Ok(Some(Destination::File(PathBuf::from(path))))
            }
            other => Err(got(other)),
        });
    let config = Config {
        to: to.unwrap_or(usual.to),
        queries: section.flag("queries", usual.queries),
        sample: section.whole("sample", 1, 100, usual.sample.into()) as u32,
    };
    section.finish();
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config as Whole;

    #[test]
    fn an_access_log_goes_to_one_place() {
        let base = "domain = \"a.example\"\ntls.mode = \"self-signed\"\n[access_log]\n";
        let load = |text: &str| Whole::parse(&format!("{base}{text}"), "f").map(|config| config.access_log);
        assert_eq!(load("").unwrap(), Config::default());
        for (to, expected) in [
            ("off", None),
            ("journal", Some(Destination::Journal)),
            ("stderr", Some(Destination::StandardError)),
            ("/var/log/x", Some(Destination::File("/var/log/x".into()))),
        ] {
            assert_eq!(load(&format!("to = {to:?}\n")).unwrap().to, expected);
        }
        let config = load("to = \"stderr\"\nqueries = true\nsample = 5\n").unwrap();
        assert_eq!((config.queries, config.sample), (true, 5));
        let mistakes = load("to = \"access.log\"\nsample = 0\n").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        assert!(told[0].contains("access_log.to: expected \"off\", \"journal\", \"stderr\" or the whole"), "{told:?}");
        assert!(told[1].contains("access_log.sample"), "{told:?}");
    }
}
