//! A tunnel as the owner of a client sees it.

use tokio::sync::watch;

use crate::builder::{ClientBuilder, TunnelBuilder};
use crate::client::{Client, OpenTunnel};
use crate::event::TunnelHandle;
use crate::events::{Events, Standing};
use crate::options::TunnelOptions;
use crate::settings::OpenError;

/// A tunnel that is online, or reconnects. Dropping it closes it.
#[derive(Debug)]
pub struct Tunnel {
    tunnel: OpenTunnel,
    standing: watch::Receiver<Standing>,
    url: String,
    /// Its client carries nothing else.
    owns_client: bool,
}

impl Tunnel {
    /// A tunnel with a client of its own. `server` is the daemon's address, such as `https://tunnel.example.com`.
    ///
    /// For settings of the client, see [`ClientBuilder::tunnel`].
    pub fn builder(server: impl Into<String>, key: impl Into<String>) -> TunnelBuilder {
        ClientBuilder::new(server.into(), key.into()).tunnel()
    }

    pub(crate) async fn open(client: Client, options: TunnelOptions, owns_client: bool) -> Result<Self, OpenError> {
        let handle = client.new_handle();
        let standing = client.hub().follow(handle);
        let tunnel = client.open_as(handle, options)?;
        let mut tunnel = Self { tunnel, standing, url: String::new(), owns_client };
        let keeps_trying = client.keeps_trying();
        let is_settled = |standing: &Standing| match standing {
            Standing::Opening => false,
            Standing::Online(_) => true,
            Standing::Refused { again, .. } => !(keeps_trying && *again),
        };
        let settled = tunnel.standing.wait_for(is_settled).await.map(|standing| standing.clone());
        match settled {
            Ok(Standing::Online(url)) => {
                tunnel.url = url;
                Ok(tunnel)
            }
            Ok(Standing::Refused { code, reason, .. }) => Err(OpenError::Refused { code, reason }),
            Ok(Standing::Opening) | Err(_) => match client.ended().await {
                Ok(()) => Err(OpenError::Closed),
                Err(refused) => Err(refused.into()),
            },
        }
    }

    /// Its public address. It changes only if the daemon picked the name, and must pick another one after a reconnect.
    pub fn url(&self) -> String {
        match &*self.standing.borrow() {
            Standing::Online(url) => url.clone(),
            Standing::Opening | Standing::Refused { .. } => self.url.clone(),
        }
    }

    /// Names the tunnel in events.
    pub fn handle(&self) -> TunnelHandle {
        self.tunnel.handle()
    }

    /// The client that carries it.
    pub fn client(&self) -> &Client {
        self.tunnel.client()
    }

    /// The events of the tunnel and of its client from now on, requests among them.
    pub fn events(&self) -> Events {
        self.client().hub().listen(Some(self.handle()))
    }

    /// Closes the tunnel. Returns once the requests under way have finished, or after ten seconds.
    pub async fn close(self) {
        let client = self.client().clone();
        if self.owns_client {
            // The end of a client that was refused meanwhile is an end too.
            let _refused = client.close().await;
        } else {
            self.tunnel.finish().await;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.client().hub().forget(self.handle());
        self.tunnel.request_close();
    }
}
