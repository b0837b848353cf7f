//! Man pages and shell completions, made from the command line's definition.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the pages of this command and of all its subcommands into this folder
    #[arg(value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the man page, or writes all of them. Fails where they can't be written.
pub fn man(command: Command, args: &ManArgs) -> io::Result<()> {
    match &args.to {
        Some(folder) => man_pages(command, folder),
        None => Man::new(command).render(&mut io::stdout()),
    }
}

fn man_pages(command: Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}

/// Prints a script that completes the command line. Fails where it can't be written.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The generator panics if its output is a closed pipe, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)
}
