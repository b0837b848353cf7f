//! What the help and the manual pages of the daemon say beyond the definition of its command line.

use cok_client::cli::man_pages::{Examples, Manual};
use cok_client::cli::settings_page::SettingsPage;

/// The daemon's.
pub(super) const MANUAL: Manual = Manual {
    examples: &[
        Examples {
            command: "cokd",
            lines: &[
                ("cokd dev", "Try everything on this machine, with a sample site"),
                ("cokd check", "Name every mistake of the configuration, and what DNS lacks"),
                ("cokd top", "Show the tunnels of the running daemon, live"),
                ("cokd key create --name laptop --expires 90d", "Make an API key for a client; it is printed once"),
                ("cokd", "Run the daemon with /etc/cokd/cokd.toml"),
                ("systemctl enable --now cokd", "The same as a service"),
            ],
        },
        Examples {
            command: "cokd dev",
            lines: &[
                ("cokd dev", "A sample site that shows what the tunnel does"),
                ("cokd dev 3000", "Your service on port 3000"),
                ("cokd dev ./dist", "The files of a folder"),
            ],
        },
    ],
    exit_codes: &[
        ("0", "stopped on request, or done"),
        ("1", "failed at run time"),
        ("2", "wrong usage or configuration"),
        ("3", "refused by the server, of `cokd dev` and `cokd client`"),
    ],
    environment: &[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "The collector of OpenTelemetry that gets traces of requests"),
        ("OTEL_*", "What is traced, and how it is exported"),
        ("RUST_LOG", "What is logged, such as cokd=debug; it beats -v and -q"),
        ("NO_COLOR", "If not empty, the log has no colours"),
        (
            "CREDENTIALS_DIRECTORY",
            "Where systemd has put the service's credentials, see LoadCredential in systemd.exec(5)",
        ),
        ("LISTEN_FDS, LISTEN_FDNAMES", "Sockets that systemd has opened, see sd_listen_fds(3)"),
        ("XDG_STATE_HOME", "The folder of `cokd dev` in place of ~/.local/state"),
    ],
    files: &[
        ("/etc/cokd/cokd.toml", "The configuration, see cokd.toml(5); --config names another file"),
        ("/var/lib/cokd", "Keys, names, certificates and the ACME account; state_dir names another folder"),
        ("/var/lib/cokd/admin.sock", "Where `cokd key`, `cokd tunnels` and others ask the running daemon"),
        ("~/.local/state/cok/dev", "The authority and the key of `cokd dev`"),
    ],
    see_also: &["cokd.toml(5)", "cok-client(1)"],
};

/// The manual page of the daemon's file.
pub(super) const PAGE: SettingsPage = SettingsPage {
    name: "cokd.toml",
    what: "the configuration of cokd",
    path: "/etc/cokd/cokd.toml",
    description: &[
        "cokd(1) reads this file when it starts, and when `cokd reload` or SIGHUP asks it to. A reload applies the file as a \
         whole or not at all. `cokd check` names every mistake in it.",
    ],
    example: include_str!("../../cokd.example.toml"),
    see_also: "cokd(1)",
};

/// The keys that the manual page of the file describes.
#[cfg(test)]
pub(crate) fn documented_keys() -> Vec<String> {
    PAGE.keys()
}
