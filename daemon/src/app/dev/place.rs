//! What the TARGET of `cokd dev` names: a service, or a folder whose files are served.

use std::path::Path;
use std::str::FromStr as _;

use cok_client::cli::Usage;
use cok_client::{LocalService, Target};

/// Reads a TARGET. A path leads to a folder; so does a word that is no target if there is a folder with this name.
pub(super) fn target(text: &str) -> Result<Target, Usage> {
    let is_folder = Path::new(text).is_dir();
    let is_path = [".", ".."].contains(&text) || ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    // The shell completes "dist" to "dist/".
    let is_completed = is_folder && text.contains('/');
    if is_path || is_completed {
        return folder(text);
    }
    match Target::from_str(text) {
        Ok(target) => Ok(target),
        Err(_) if is_folder => folder(text),
        Err(error) => Err(Usage(format!("{error}, or a folder such as ./dist"))),
    }
}

fn folder(text: &str) -> Result<Target, Usage> {
    let service = LocalService::folder(Path::new(text)).map_err(|error| Usage(error.to_string()))?;
    Ok(Target::Service(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_folders_and_all_else_a_target() {
        // Tests run in the folder of the crate.
        for (text, shown) in [
            ("3000", "http://localhost:3000"),
            ("src.example", "http://src.example:80"),
            ("localhost:3000/", "http://localhost:3000"),
            ("unix:/run/x", "unix:/run/x"),
            ("http://src", "http://src:80"),
        ] {
            assert_eq!(target(text).unwrap().to_string(), shown);
        }
        for text in ["src", "src/", "./src", ".", "..", "/"] {
            let shown = target(text).unwrap().to_string();
            assert!(shown.starts_with("the files in /"), "{text}: {shown}");
        }
        for (text, why) in
            [("none", "or a folder"), ("./none", "cannot serve the folder"), ("./Cargo.toml", "no folder")]
        {
            let error = target(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
