//! Man pages and shell completions, made from the command line's definition and from what a program says beyond it.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use cok_host::output;

use super::program::{OWN_NAME, called};
use super::settings_page::SettingsPage;

/// What the definition of a command line does not have.
#[derive(Debug)]
pub struct Manual {
    /// Examples, by command.
    pub examples: &'static [Examples],
    /// The exit codes and their meanings.
    pub exit_codes: &'static [(&'static str, &'static str)],
    /// The environment variables that it reads.
    pub environment: &'static [(&'static str, &'static str)],
    /// The files that it reads and writes.
    pub files: &'static [(&'static str, &'static str)],
    /// Other pages.
    pub see_also: &'static [&'static str],
}

/// The examples of one command.
#[derive(Debug)]
pub struct Examples {
    /// The command as it is called, such as `cok-client serve`.
    pub command: &'static str,
    /// Command lines, each with what it does.
    pub lines: &'static [(&'static str, &'static str)],
}

impl Manual {
    /// What the help of a command ends with. For a whole program, the environment and the exit codes come first. Examples of the
    /// client call it as the user has.
    pub fn help(&self, command: &str) -> String {
        let mut text = String::new();
        if !command.contains(' ') {
            let codes: Vec<String> =
                self.exit_codes.iter().map(|(code, meaning)| format!("{code} {meaning}")).collect();
            let names: Vec<&str> = self.environment.iter().map(|(name, _)| *name).collect();
            let (names, codes) = (names.join(", "), codes.join("; "));
            let _infallible = write!(text, "Environment: {names}\nExit codes: {codes}\n\n");
        }
        text.push_str("Examples:");
        for (line, what) in self.examples_of(command) {
            let _infallible = write!(text, "\n  {}\n      {what}", line.replace(OWN_NAME, called()));
        }
        text
    }

    fn examples_of(&self, command: &str) -> &'static [(&'static str, &'static str)] {
        self.examples.iter().find(|examples| examples.command == command).map_or(&[], |examples| examples.lines)
    }
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write the pages of this command, of all its subcommands and of its configuration file into this folder
    #[arg(value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the man page, or writes all of them with that of the configuration file. Fails where they can't be written.
pub fn man(mut command: Command, manual: &Manual, settings: &SettingsPage, args: &ManArgs) -> io::Result<()> {
    command = command.disable_help_subcommand(true);
    command.build();
    if let Some(folder) = &args.to {
        settings.write(folder)?;
        man_pages(&command, manual, folder)
    } else {
        output::bytes(&page(&command, manual)?);
        Ok(())
    }
}

fn man_pages(command: &Command, manual: &Manual, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        man_pages(subcommand, manual, folder)?;
    }
    let name = Man::new(command.clone()).get_filename();
    std::fs::write(folder.join(name), page(command, manual)?)
}

fn page(command: &Command, manual: &Manual) -> io::Result<Vec<u8>> {
    let called = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let program = called.split(' ').next().unwrap_or(called);
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    entries(&mut rest, "EXIT STATUS", manual.exit_codes);
    let mut others = manual.see_also.to_vec();
    let main = format!("{program}(1)");
    if called == program {
        entries(&mut rest, "ENVIRONMENT", manual.environment);
        entries(&mut rest, "FILES", manual.files);
    } else {
        others.insert(0, &main);
    }
    let examples: Vec<(&str, &str)> = manual.examples_of(called).iter().map(|(line, what)| (*what, *line)).collect();
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        for (what, line) in examples {
            rest.control("PP", []).text([roman(format!("{what}:"))]);
            rest.control("RS", ["4"]).text([bold(line)]).control("RE", []);
        }
    }
    rest.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// A section with a name and a text for each entry.
fn entries(roff: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, text) in entries {
        entry(roff, name, &[roman(*text)]);
    }
}

/// A name and its text.
pub(super) fn entry(roff: &mut Roff, name: &str, text: &[Inline]) {
    roff.control("TP", []).text([bold(name)]).text(text.to_vec());
}

/// Prints a script that completes the command line. Fails where it can't be written.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // The generator panics if its output is a closed pipe, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::bytes(&script);
    Ok(())
}
