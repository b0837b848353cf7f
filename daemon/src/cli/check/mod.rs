//! `cokd check`: finds what would keep the daemon from its start, its visitors or its clients, before any of them notices.
//!
//! It changes nothing. A mistake in the configuration gives exit code 2; what is missing around it gives 1.

mod dns;
mod keys;
mod ports;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cok_client::logging;
use cok_host::say;

use super::exit::{DEFAULT_CONFIG, FAILED, USAGE, block_on, outcome, wrong};
use crate::config::Config;
use crate::host::eyes::{Eyes, Sight};
use crate::{admin, certificates};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Look at files as this user; default: the user of cokd.service if it is installed, else yours
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// An address that leads to this machine, if a router or a load balancer has it; may be repeated
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Ask this DNS resolver, instead of the system's
    #[arg(long, value_name = "ADDRESS")]
    resolver: Option<SocketAddr>,
}

/// What is found around a configuration without mistakes.
#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    faults: usize,
}

impl Report {
    /// Adds what keeps the daemon from its work.
    fn fault(&mut self, line: String) {
        self.faults += 1;
        self.lines.push(line);
    }

    /// Adds what the operator should know.
    fn note(&mut self, line: String) {
        self.lines.push(line);
    }
}

/// Checks the file, then what is around it.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let eyes = match Eyes::new(args.user.as_deref()) {
        Ok(eyes) => eyes,
        Err(error) => {
            logging::complain(&format!("cokd: {error:#}"));
            return ExitCode::from(USAGE);
        }
    };
    let file = args.config.display();
    let mistakes = mistakes(&config, &eyes);
    if !mistakes.is_empty() {
        for mistake in mistakes {
            logging::complain(&format!("{file}: {mistake}").replace('\n', " "));
        }
        return ExitCode::from(USAGE);
    }
    say!("{file}: no mistakes");
    let mut report = Report::default();
    if let Some(note) = eyes.note() {
        report.note(note);
    }
    let looked = block_on(async {
        let runs = runs(&config);
        keys::look(&config, &mut report).await;
        ports::look(&config, &eyes, runs, &mut report);
        dns::look(&config, args, &mut report).await;
        Ok(())
    });
    for line in &report.lines {
        say!("{line}");
    }
    if looked.is_ok() && report.faults > 0 { ExitCode::from(FAILED) } else { outcome(looked) }
}

/// What would prevent a start, each with its key.
fn mistakes(config: &Config, eyes: &Eyes) -> Vec<String> {
    let domain = config.startup.domain.as_str();
    let mut mistakes = certificates::mistakes(&config.certificates, domain, &|path| eyes.look(path));
    if let Some(file) = &config.admin.token_file
        && let Sight::Unreadable(why) = eyes.look(file)
    {
        mistakes.push(format!("admin.token_file: {why}"));
    }
    if let Some(fault) = eyes.state_dir_fault(&config.startup.state_dir) {
        mistakes.push(format!("state_dir: {fault}"));
    }
    mistakes.extend(ports::twice(&config.listen.startup.addresses));
    mistakes
}

/// True if a daemon runs with this state directory, as far as this user can tell.
fn runs(config: &Config) -> bool {
    match admin::connect(&config.startup.state_dir) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}
