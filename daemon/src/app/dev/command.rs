//! Command lines that a user can paste.

use std::env;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The command that runs this program: `cokd` if the shell resolves that to this file, else the full path.
pub(super) fn this_program() -> String {
    let name = "cokd";
    let Ok(file) = env::current_exe() else { return name.to_owned() };
    let is_found = on_path(name).is_some_and(|found| is_same(&found, &file));
    if is_found { name.to_owned() } else { quoted(&file.to_string_lossy()) }
}

/// The file that the shell runs for this command name.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|data| can_run(&data)))
}

fn can_run(data: &Metadata) -> bool {
    data.is_file() && data.mode() & 0o111 != 0
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|data| (data.dev(), data.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// Quotes a text as one shell word.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_shell_reads_what_was_quoted() {
        for text in ["/usr/bin/cokd", "", "a b", "it's", "$HOME", "`id`", "~", "a\\b", "\"", "a\nb", "*", "é", "-n;#&|"]
        {
            let output = Command::new("sh").arg("-c").arg(format!("printf '%s' {}", quoted(text))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
        assert_eq!(quoted("/usr/bin/cokd"), "/usr/bin/cokd");
    }
}
