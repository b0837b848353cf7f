//! `cokd key`: makes, shows, changes, revokes and deletes API keys. A running daemon does it; where none runs, this process does it
//! on the store in the state directory.

mod args;
mod keeper;
mod list;

use std::process::ExitCode;

use anyhow::Context as _;
use cok_client::logging;
use cok_host::say;

use self::args::CreateArgs;
pub(super) use self::args::KeyCommand;
pub(super) use self::keeper::Keeper;
use self::keeper::KeyFailure;
use crate::admission::wire::{KeyView, NewKey, Rotation, State};
use crate::cli::exit::{FAILED, USAGE, block_on, outcome, wrong};
use crate::config::Config;
use crate::names::ApiKey;

/// Runs a command.
pub(super) fn run(command: &KeyCommand) -> ExitCode {
    if let KeyCommand::Create(args) = command
        && args.for_config
    {
        return outcome(create_for_config(args));
    }
    let config = match Config::load(command.file()) {
        Ok(config) => config,
        Err(error) => return wrong(&error),
    };
    let mut code = ExitCode::SUCCESS;
    let done = block_on(async {
        match carry_out(command, &Keeper::new(&config)).await {
            Err(KeyFailure::Refused(why)) => {
                logging::complain(&format!("cokd: {why}").replace('\n', " "));
                code = ExitCode::from(if why.is_mistake() { USAGE } else { FAILED });
                Ok(())
            }
            Err(KeyFailure::Other(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    });
    if done.is_err() { outcome(done) } else { code }
}

async fn carry_out(command: &KeyCommand, keeper: &Keeper) -> Result<(), KeyFailure> {
    match command {
        KeyCommand::Create(args) => show_new(&keeper.create(&args.changes()).await?, "made"),
        KeyCommand::List { json, .. } => {
            let keys = keeper.list().await?;
            if *json { print_json(&keys)? } else { list::print_all(&keys) }
        }
        KeyCommand::Show { key, json, .. } => {
            let key = keeper.show(key).await?;
            if *json { print_json(&key)? } else { list::print_one(&key) }
        }
        KeyCommand::Edit(args) => list::print_one(&keeper.edit(&args.key, &args.changes()).await?),
        KeyCommand::Revoke { key, .. } => {
            let KeyView { id, name, .. } = keeper.revoke(key).await?;
            say!("the key {id} ({name}) is revoked");
        }
        KeyCommand::Delete { key, .. } => {
            let KeyView { id, name, .. } = keeper.delete(key).await?;
            say!("the key {id} ({name}) is deleted");
        }
        KeyCommand::Rotate { key, grace, .. } => {
            let rotation = Rotation { grace_seconds: grace.map_or(0, |grace| grace.as_secs()) };
            show_new(&keeper.rotate(key, rotation).await?, "has a new secret");
        }
    }
    Ok(())
}

/// Prints the key alone on standard output, since scripts read it.
fn show_new(new: &NewKey, done: &str) {
    say!("{}", new.secret);
    let KeyView { id, name, state, .. } = &new.key;
    eprintln!("the key {id} ({name}) {done}; its secret is shown only this once");
    if *state == State::Expired {
        eprintln!("it has expired; `cokd key edit {id} --expires TIME` gives it more time");
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(value).context("cannot print JSON")?);
    Ok(())
}

/// Makes a key that only the configuration file knows, and prints its section there to standard error.
fn create_for_config(args: &CreateArgs) -> anyhow::Result<()> {
    let key = ApiKey::generate().context("cannot make a key")?;
    say!("{}", key.reveal());
    eprintln!("# The key is shown once. For the configuration file:\n\n{}", args.section(&key.digest().to_hex()));
    Ok(())
}
