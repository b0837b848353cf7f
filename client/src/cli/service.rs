//! `cok-client service`: a unit of the user's service manager (systemd) for the tunnels of the configuration file. It
//! writes and removes the unit, and prints the commands that start it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use cok_host::home;
use cok_host::say;

use super::failure::Usage;
use super::plan::env;
use super::program;
use crate::config::{ConfigError, FileConfig};
use crate::logging;
use crate::outbound;

/// The unit's name.
const UNIT: &str = "cok-client.service";
/// Its first line. A file without it was not written by this command.
const MARK: &str = "# Written by `cok-client service install`; `cok-client service uninstall` removes it.";

/// What to do with the unit.
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Write a unit that keeps the tunnels of the configuration file up
    Install {
        /// The configuration file [default: ~/.config/cok/client.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Stop it and remove the unit
    Uninstall,
    /// Say whether the unit is there and runs
    Status,
}

/// Runs a subcommand.
pub(super) fn run(command: &ServiceCommand) -> anyhow::Result<()> {
    if cfg!(not(target_os = "linux")) {
        bail!(
            "this system has no systemd; have its own service manager (launchd, or Windows' Task Scheduler) run `{} start \
             --all --keep-trying`",
            program::called()
        );
    }
    let folder = home::config_folder()
        .ok_or_else(|| Usage("there is no home folder, where units of the user are".to_owned()))?;
    let path = folder.join("systemd/user").join(UNIT);
    match command {
        ServiceCommand::Install { config } => {
            let config = config.clone().unwrap_or_else(|| folder.join("cok/client.toml"));
            install(&path, &config)?;
            let told = systemctl(&["daemon-reload"]);
            say!("wrote {}", path.display());
            match told {
                Ok(_) => {}
                Err(why) => say!("systemd was not told: {why}"),
            }
            say!("now start it, and keep it while you are not logged in:");
            say!("    systemctl --user enable --now cok-client");
            say!("    loginctl enable-linger");
            if let Some(warning) = lost_proxy(&FileConfig::load(Some(&config))?) {
                logging::complain(&format!("{}: {warning}", program::called()));
            }
        }
        ServiceCommand::Uninstall => {
            if !path.exists() {
                say!("there is no {}", path.display());
                return Ok(());
            }
            own(&path)?;
            // systemd needs the file to disable the unit, so it is removed afterwards.
            let told = systemctl(&["disable", "--now", UNIT]);
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            let told = told.and_then(|_| systemctl(&["daemon-reload"]));
            say!("removed {}", path.display());
            if let Err(why) = told {
                say!("systemd was not told: {why}");
            }
        }
        ServiceCommand::Status => {
            if !path.exists() {
                bail!("not installed: there is no {}; say {} service install", path.display(), program::called());
            }
            say!("installed: {}", path.display());
            match systemctl(&["is-active", UNIT]) {
                Ok(state) => say!("state: {state}"),
                Err(why) => say!("state: unknown: {why}"),
            }
        }
    }
    Ok(())
}

/// What to say if this shell reaches the server through a proxy that the service will not know.
fn lost_proxy(file: &FileConfig) -> Option<String> {
    let server = file.server.as_ref().filter(|_| file.proxy.is_none())?;
    let (proxy, origin) = outbound::from_environment(env, server.address()).ok()??;
    Some(format!(
        "this shell reaches the server through the proxy {proxy} of {origin}, which the service does not see; name it by \
         `proxy` in the configuration file"
    ))
}

fn install(path: &Path, config: &Path) -> anyhow::Result<()> {
    let config = std::path::absolute(config).context("the configuration file has no place")?;
    let tunnels = FileConfig::load(Some(&config))?.tunnels;
    if tunnels.is_empty() {
        return Err(ConfigError::new(format!("{} has no [tunnels.NAME] to keep up", config.display())).into());
    }
    if path.exists() {
        own(path)?;
    }
    let file = std::env::current_exe().context("cannot find this program's file")?;
    let unit = unit(&file, program::subcommand(), &config)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, unit).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails for a unit that this command has not written.
fn own(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !text.starts_with(MARK) {
        bail!("{} was not written by this command; move it away first", path.display());
    }
    Ok(())
}

fn unit(program: &Path, subcommand: Option<&str>, config: &Path) -> anyhow::Result<String> {
    // systemd expands variables in arguments, but not in the program's path.
    let (program, config) = (quoted(program)?, quoted(config)?.replace('$', "$$"));
    let program = [program.as_str()].into_iter().chain(subcommand).collect::<Vec<_>>().join(" ");
    // systemd restarts it without limit, since the tunnels also try without limit. The exit code of a wrong configuration (2)
    // prevents that, since another try would fail as well.
    Ok(format!(
        "{MARK}\n[Unit]\nDescription=cok: tunnels to local services\nStartLimitIntervalSec=0\n\n[Service]\nExecStart={program} \
         --config {config} --keep-trying --inspect off\nExecReload=/bin/kill -HUP $MAINPID\nRestart=always\nRestartSec=2s\n\
         RestartPreventExitStatus=2\nNoNewPrivileges=yes\n\
         LimitCORE=0\n\n[Install]\nWantedBy=default.target\n"
    ))
}

/// A path as one word of a unit's command line (systemd.service(5)).
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.chars().any(char::is_control) {
        bail!("{text:?} has control characters");
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    Ok(format!("\"{text}\""))
}

/// The output of `systemctl --user`, or why there is none. For an inactive unit it fails, but prints the state.
fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let result = Command::new("systemctl").arg("--user").args(arguments).output();
    let output = result.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no systemctl here".to_owned(),
        _ => format!("systemctl: {error}"),
    })?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() || !said.is_empty() {
        return Ok(said);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        let quoted = |text: &str| quoted(Path::new(text));
        assert_eq!(quoted("/a b/c").unwrap(), r#""/a b/c""#);
        assert_eq!(quoted(r#"/100%/$HOME/"\"#).unwrap(), r#""/100%%/$HOME/\"\\""#);
        let text = unit(Path::new("/$a/cok-client"), None, Path::new("/$b")).unwrap();
        assert!(text.contains(r#"ExecStart="/$a/cok-client" --config "/$$b" --keep-trying --inspect off"#), "{text}");
        assert!(text.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"), "{text}");
        let text = unit(Path::new("/cokd"), Some("client"), Path::new("/b")).unwrap();
        assert!(text.contains(r#"ExecStart="/cokd" client --config "/b" --keep-trying --inspect off"#), "{text}");
        assert!(quoted("/a\nExecStartPre=/bin/evil").is_err());
    }
}
