//! Has the user change a text in an editor.

use std::process::Command;

use anyhow::{Context as _, bail};
use cok_host::private_file;

use crate::cli::plan::env;

/// The text after the user's changes. It stands in a private file meanwhile.
pub(super) fn in_editor(text: &str) -> anyhow::Result<String> {
    let usual = if cfg!(windows) { "notepad" } else { "vi" };
    let editor = env("VISUAL").or_else(|| env("EDITOR")).unwrap_or_else(|| usual.to_owned());
    let folder = private_file::temporary_folder(&std::env::temp_dir()).context("cannot make a file for the editor")?;
    let path = folder.path().join("request.http");
    private_file::write(&path, text.as_bytes()).context("cannot make a file for the editor")?;
    // The editor may be a command with options, as in other programs.
    let mut command = if cfg!(windows) {
        let mut words = editor.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or(usual));
        command.args(words).arg(&path);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{editor} \"$1\""), &editor]).arg(&path);
        command
    };
    let status = command.status().with_context(|| format!("cannot start the editor {editor}"))?;
    if !status.success() {
        bail!("the editor failed, so nothing was sent");
    }
    std::fs::read_to_string(&path).context("the edited request cannot be read")
}
