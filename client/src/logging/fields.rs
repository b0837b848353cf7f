//! The fields of a line of text: those whose values the message contains already are left out.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::text::harmless;

/// A shorter value may be part of a message by chance.
const LEAST: usize = 3;

/// Writes the message, then each field whose value the message does not contain. The message about a request says everything.
#[derive(Debug)]
pub(super) struct MessageFirst;

impl<'w> FormatFields<'w> for MessageFirst {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut entry = Entry::default();
        fields.record(&mut entry);
        writer.write_str(&harmless(entry.message.chars()))?;
        if entry.is_about_a_request() {
            return Ok(());
        }
        for (name, value, shown) in entry.fields {
            if value.len() >= LEAST && entry.message.contains(&value) {
                continue;
            }
            let shown = harmless(shown.chars());
            if writer.has_ansi_escapes() {
                write!(writer, " \u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{shown}")?;
            } else {
                write!(writer, " {name}={shown}")?;
            }
        }
        Ok(())
    }
}

/// The parts of an entry.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    /// Name, value, and the value as it is shown.
    fields: Vec<(&'static str, String, String)>,
}

impl Entry {
    fn is_about_a_request(&self) -> bool {
        let kind = self.fields.iter().find(|(name, ..)| *name == "event").map(|(_, value, _)| value.as_str());
        matches!(kind, Some("request" | "stream_began" | "stream_ended"))
    }

    fn add(&mut self, field: &Field, value: String, shown: String) {
        match field.name() {
            "message" => self.message = value,
            // The log crate adds the place in the source.
            name if name.starts_with("log.") => {}
            name => self.fields.push((name, value, shown)),
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned(), format!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.add(field, value.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(ansi: bool, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let subscriber =
            tracing_subscriber::fmt().fmt_fields(MessageFirst).with_ansi(ansi).without_time().with_target(false);
        let subscriber = subscriber.with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_in_the_message_are_not_repeated() {
        let said = line(false, || {
            let (reason, error) = ("no way", io::Error::other("broken"));
            tracing::info!(event = "lost", reason, %error, after = 7, "offline: no way: {error}");
        });
        assert_eq!(said, " INFO offline: no way: broken event=\"lost\" after=7\n");
    }

    #[test]
    fn escape_characters_of_others_are_shown_as_text() {
        let said = line(true, || tracing::info!(said = "\u{1b}[2J", "heard \u{1b}[1m"));
        assert!(said.contains("heard \\u{1b}[1m"), "{said:?}");
        assert!(said.contains("\\u{1b}[2J") && !said.contains("\u{1b}[2J"), "{said:?}");
    }
}
