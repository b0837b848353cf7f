//! The public address that a user wants, as `--url` names it.

use std::str::FromStr;

use anyhow::{Context as _, bail};

use crate::name::check_subdomain;
use crate::server::Server;

/// A tunnel's public address: its name and the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicUrl {
    /// The first label of the host.
    pub(super) subdomain: String,
    /// The rest of the host, with the port.
    pub(super) server: Server,
    /// The user's words.
    text: String,
}

impl FromStr for PublicUrl {
    type Err = anyhow::Error;

    /// Reads `https://demo.tunnel.example.com[:port]`, or without the scheme.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => bail!("\"{text}\" must be https://…"),
            None => text,
        };
        let (name, server) = rest.split_once('.').context("there is no domain after the name")?;
        let subdomain = check_subdomain(name).map_err(anyhow::Error::msg)?;
        let server: Server = server.parse()?;
        if format!("{name}.{}", server.host()).parse::<std::net::IpAddr>().is_ok() {
            bail!("\"{text}\" has an IP address in place of a name");
        }
        Ok(Self { subdomain, server, text: text.to_owned() })
    }
}

impl PublicUrl {
    /// Fails unless the address lies in the domain of this server.
    pub(super) fn check(&self, server: &Server) -> anyhow::Result<()> {
        if !self.server.host().eq_ignore_ascii_case(server.host()) {
            bail!("--url {}: the server is {server}, so it must be https://NAME.{}", self.text, server.authority());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_label_is_the_name_and_the_rest_the_server() {
        for (text, server) in [
            ("https://Demo.tunnel.example.com", "tunnel.example.com"),
            ("https://demo.tunnel.example.com/", "tunnel.example.com"),
            ("demo.tunnel.example.com:8443", "tunnel.example.com:8443"),
            ("https://demo.localhost:8443", "localhost:8443"),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!((url.subdomain.as_str(), url.server.authority()), ("demo", server.to_owned()));
        }
        for text in
            ["http://a.b", "https://a", "", "https://-a.b", "https://a.b/c", "https://.b", "https://127.0.0.1", "a.b:0"]
        {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn it_lies_in_the_domain_of_the_server() {
        let url: PublicUrl = "https://demo.tunnel.example.com".parse().unwrap();
        for (server, fits) in [
            ("tunnel.example.com", true),
            ("Tunnel.Example.com:8443", true),
            ("example.com", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(url.check(&server.parse().unwrap()).is_ok(), fits, "{server}");
        }
    }
}
