//! What `cokd dev` prints once traffic passes: the site's address and the next steps.

use std::fmt;
use std::path::Path;

use cok_client::Target;

use super::DOMAIN;
use super::command::{quoted, this_program};
use super::ports::Ports;
use crate::names::Subdomain;

/// The content of the greeting.
pub(super) struct Greeting<'a> {
    pub(super) url: &'a str,
    pub(super) subdomain: &'a Subdomain,
    /// The tunnel's transport.
    pub(super) transport: &'a str,
    /// The target; `None` for the sample site.
    pub(super) target: Option<&'a Target>,
    /// The daemon's own address, for clients.
    pub(super) server: &'a str,
    pub(super) ca_file: &'a Path,
    pub(super) key: &'a str,
    pub(super) ports: &'a Ports,
}

impl Greeting<'_> {
    /// The greeting as one line of JSON.
    pub(super) fn json(&self) -> String {
        let Self { url, transport, server, ca_file, key, ports, .. } = self;
        let admin = self.admin();
        serde_json::json!({
            "url": url, "server": server, "ca_file": ca_file, "api_key": key, "admin": admin, "transport": transport,
            "ports": ports,
        })
        .to_string()
    }

    fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.admin)
    }
}

/// The greeting as text.
impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, subdomain, transport, target, server, ca_file, key, ports } = self;
        let service = target.map_or("a sample site".to_owned(), ToString::to_string);
        let (ca, host) = (quoted(&ca_file.to_string_lossy()), format!("{subdomain}.{DOMAIN}"));
        writeln!(
            f,
            "\n  {url}\n  leads to {service}, through a tunnel on this machine ({transport}).\n\n\
             Browsers and programs have to trust this authority:\n  {}\n  curl --cacert {ca} {url}/\n\
             If a program can't resolve {host}, use a browser, or curl with --resolve {host}:{}:127.0.0.1\n\n\
             To add a service of your own, here on port 3000, run this in a second terminal:\n  \
             COK_API_KEY={} {} client 3000 --subdomain mine --server {server} --ca-file {ca}\n",
            ca_file.display(),
            ports.https,
            quoted(key),
            this_program(),
        )?;
        if let Some(http) = ports.http {
            writeln!(f, "Plain HTTP: http://{host}:{http} redirects to HTTPS")?;
        }
        write!(f, "Health and metrics: {}/metrics\nStop with Ctrl-C.", self.admin())
    }
}
