//! The folders in a user's home, by the XDG base directory specification. On Windows without a `HOME`, they are in the
//! user's profile. It creates none of them.

use std::ffi::OsString;
use std::path::PathBuf;

/// For configuration: `$XDG_CONFIG_HOME`, or `~/.config`. `None` if the user has no home.
pub fn config_folder() -> Option<PathBuf> {
    folder("XDG_CONFIG_HOME", ".config", IN_PROFILE.map(|names| names[0]), |name| std::env::var_os(name))
}

/// For what a program keeps between its runs: `$XDG_STATE_HOME`, or `~/.local/state`. `None` if the user has no home.
pub fn state_folder() -> Option<PathBuf> {
    folder("XDG_STATE_HOME", ".local/state", IN_PROFILE.map(|names| names[1]), |name| std::env::var_os(name))
}

/// The variables of Windows for the folders of configuration and state.
const IN_PROFILE: Option<[&str; 2]> = if cfg!(windows) { Some(["APPDATA", "LOCALAPPDATA"]) } else { None };

/// The specification has programs ignore a relative path.
fn folder(
    variable: &str,
    in_home: &str,
    in_profile: Option<&str>,
    value: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let absolute = |name| value(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let found = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(in_home)));
    found.or_else(|| absolute(in_profile?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_variable_beats_the_home_and_relative_paths_do_not_count() {
        let found = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value));
            folder("XDG_STATE_HOME", ".local/state", None, value)
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(found(&[home]).as_deref(), Some(Path::new("/home/ada/.local/state")));
        assert_eq!(found(&[("XDG_STATE_HOME", "/state"), home]).as_deref(), Some(Path::new("/state")));
        assert_eq!(found(&[("XDG_STATE_HOME", "state"), home]).as_deref(), Some(Path::new("/home/ada/.local/state")));
        assert_eq!((found(&[]), found(&[("HOME", "")])), (None, None));
    }
}
