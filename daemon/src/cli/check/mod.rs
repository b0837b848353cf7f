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
use crate::host::service_view::{FileAccess, ServiceView};
use crate::observe::Destination;
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

/// Prints what is found around a configuration without mistakes, each line once it is known, and counts the faults.
#[derive(Debug, Default)]
struct Report {
    faults: usize,
}

impl Report {
    /// Prints what keeps the daemon from its work.
    fn fault(&mut self, line: &str) {
        self.faults += 1;
        self.note(line);
    }

    /// Prints what the operator should know.
    #[expect(clippy::unused_self, reason = "only a report prints findings")]
    fn note(&self, line: &str) {
        say!("{line}");
    }
}

/// Checks the file, then what is around it.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let view = match ServiceView::new(args.user.as_deref(), &args.config) {
        Ok(view) => view,
        Err(error) => {
            logging::complain(&format!("cokd: {error:#}"));
            return ExitCode::from(USAGE);
        }
    };
    let file = args.config.display();
    let mistakes = mistakes(&config, &view);
    if !mistakes.is_empty() {
        for mistake in mistakes {
            logging::complain(&format!("{file}: {mistake}").replace('\n', " "));
        }
        return ExitCode::from(USAGE);
    }
    let mut report = Report::default();
    report.note(&format!("{file}: no mistakes"));
    if let Some(note) = view.note() {
        report.note(&note);
    }
    if let Some(Destination::File(file)) = &config.access_log.to
        && let Some(fault) = file.parent().and_then(|folder| view.folder_fault(folder))
    {
        report.fault(&format!("access_log.to: {fault}"));
    }
    let looked = block_on(async {
        ports::look(&config, &view, running(&config), &mut report);
        // These wait for the daemon, and for servers of DNS.
        keys::look(&config, &mut report).await;
        dns::look(&config, args, &mut report).await;
        Ok(())
    });
    if looked.is_ok() && report.faults > 0 { ExitCode::from(FAILED) } else { outcome(looked) }
}

/// What would prevent a start, each with its key.
fn mistakes(config: &Config, view: &ServiceView) -> Vec<String> {
    let domain = config.startup.domain.as_str();
    let mut mistakes = certificates::mistakes(&config.certificates, domain, &|path| view.look(path));
    if let Some(file) = &config.admin.token_file
        && let FileAccess::Unreadable(why) = view.look(file)
    {
        mistakes.push(format!("admin.token_file: {why}"));
    }
    if let Some(fault) = view.state_dir_fault(&config.startup.state_dir) {
        mistakes.push(format!("state_dir: {fault}"));
    }
    mistakes.extend(ports::twice(&config.listen.startup.addresses));
    mistakes
}

/// The daemon with this state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    /// None runs.
    No,
    /// This process.
    Process(i32),
    /// This user cannot tell.
    Unknown,
}

fn running(config: &Config) -> Running {
    match admin::connect(&config.startup.state_dir) {
        Ok(stream) => match stream.peer_cred().ok().and_then(|daemon| daemon.pid()) {
            // A process outside of this container has the number 0 here.
            Some(pid) if pid > 0 => Running::Process(pid),
            _ => Running::Unknown,
        },
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Running::Unknown,
        Err(_) => Running::No,
    }
}
