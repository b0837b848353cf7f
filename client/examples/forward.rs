//! Puts local servers at public addresses, all in one session, and prints their requests:
//!
//!     COK_SERVER=https://tunnel.example.com COK_API_KEY=cok_… cargo run --example forward -- web=3000 api=h2c://localhost:50051
//!
//! COK_CA_FILE and COK_CONNECT_TO are for a daemon with certificates of its own, and without a public name.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::pin::pin;

use cok_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Client::builder(env::var("COK_SERVER")?, env::var("COK_API_KEY")?);
    if let Ok(file) = env::var("COK_CA_FILE") {
        builder = builder.ca_file(file);
    }
    if let Ok(address) = env::var("COK_CONNECT_TO") {
        builder = builder.connect_to(address.parse()?);
    }
    let client = builder.connect()?;
    let mut events = client.events();
    // A tunnel closes when it is dropped, so the list keeps them open.
    let mut tunnels = Vec::new();
    for argument in env::args().skip(1) {
        let (name, target) = argument.split_once('=').ok_or("say name=target")?;
        let tunnel = client.tunnel().label(name).subdomain(name).target(target).open().await?;
        println!("{} -> {target}", tunnel.url());
        tunnels.push(tunnel);
    }
    let mut running = HashMap::new();
    // One wait for the whole loop: a signal between two waits would be lost.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = &mut interrupted => break,
        };
        match event {
            Some(Event::RequestBegan { request, method, path, .. }) => {
                running.insert(request, format!("{method} {path}"));
            }
            Some(Event::RequestEnded { request, status, bytes, time, .. }) => {
                let what = running.remove(&request).unwrap_or_default();
                let status = status.map_or("no response".to_owned(), |status| status.to_string());
                println!("{what}: {status}, {bytes} bytes in {} ms", time.as_millis());
            }
            Some(Event::Disconnected { reason, .. }) => println!("offline: {reason}"),
            Some(_) => {}
            None => break,
        }
    }
    client.close().await?;
    Ok(())
}
