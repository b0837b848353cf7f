//! What the help and the manual pages of the client say beyond the definition of its command line.

use super::man_pages::{Examples, Manual};
use super::settings_page::SettingsPage;

/// The client's.
pub(super) const MANUAL: Manual = Manual {
    examples: &[
        Examples {
            command: "cok-client",
            lines: &[
                ("cok-client login https://tunnel.example.com", "Store the server and the API key, once"),
                ("cok-client 3000", "Put port 3000 at a public address"),
                ("cok-client 3000 --subdomain demo", "The same, as https://demo.tunnel.example.com"),
                ("cok-client serve ./dist", "Put the files of a folder there"),
                (
                    "cok-client https://192.168.1.7 --basic-auth-file passwords",
                    "Another machine, for those with a password",
                ),
                ("cok-client start --all", "Open all tunnels of the configuration file"),
            ],
        },
        Examples {
            command: "cok-client serve",
            lines: &[
                ("cok-client serve ./dist --subdomain demo", "The files of ./dist at https://demo.tunnel.example.com"),
                ("cok-client serve . --basic-auth me:secret", "Those of this folder, for those with the password"),
            ],
        },
        Examples {
            command: "cok-client login",
            lines: &[
                ("cok-client login https://tunnel.example.com", "Ask for the API key on the terminal"),
                ("pass show cok | cok-client login https://tunnel.example.com", "Read it from another program"),
            ],
        },
        Examples {
            command: "cok-client doctor",
            lines: &[
                ("cok-client doctor", "Say what is in the way of the tunnels in the configuration file"),
                ("cok-client doctor 3000 --json", "The same for port 3000, for a program"),
            ],
        },
        Examples {
            command: "cok-client requests",
            lines: &[
                ("cok-client requests", "List the latest requests of the running client"),
                ("cok-client requests status=5xx path=/hooks", "Those for a path that failed"),
                ("cok-client requests --follow --json", "Each one as it ends, for a program"),
            ],
        },
        Examples {
            command: "cok-client replay",
            lines: &[
                ("cok-client replay 12", "Send request 12 to the service again"),
                ("cok-client replay 12 --edit", "The same, changed in an editor before"),
            ],
        },
        Examples {
            command: "cok-client config",
            lines: &[
                ("cok-client config set server=https://tunnel.example.com transport=ws", "Set two keys"),
                ("cok-client config set tunnels.web.target=3000", "Add a tunnel, or change where it leads"),
                ("cok-client config set transport=", "Remove a key"),
                ("cok-client config check", "Name every mistake"),
            ],
        },
    ],
    exit_codes: &[
        ("0", "stopped on request"),
        ("1", "failed at run time"),
        ("2", "wrong usage or configuration"),
        ("3", "refused by the server: the key, or every tunnel"),
    ],
    environment: &[
        ("COK_SERVER", "The server, as --server"),
        ("COK_API_KEY", "The API key, as --api-key"),
        ("COK_SUBDOMAIN", "The name, as --subdomain"),
        ("COK_TRANSPORT", "The transport, as --transport"),
        ("COK_INSPECT", "Whether and where requests are shown, as --inspect"),
        ("COK_BASIC_AUTH", "Users and passwords of visitors, as --basic-auth; one USER:PASSWORD a line"),
        ("HTTPS_PROXY, ALL_PROXY", "The proxy to the server, as --proxy"),
        ("NO_PROXY", "Hosts that need no proxy, with commas between"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "The collector of OpenTelemetry that gets traces of requests"),
        ("OTEL_*", "What is traced, and how it is exported"),
        ("RUST_LOG", "What is logged, such as cok_client=debug; it beats -v and -q"),
        ("NO_COLOR", "If not empty, the log has no colours"),
        ("XDG_CONFIG_HOME, XDG_STATE_HOME", "The folders in place of ~/.config and ~/.local/state"),
    ],
    files: &[
        ("~/.config/cok/client.toml", "The configuration, see client.toml(5); --config names another file"),
        ("~/.config/cok/client.api-key", "The API key that `login` has stored"),
        ("~/.local/state/cok/instance", "The id of this installation, by which it gets its names back at once"),
        ("~/.local/state/cok/share-key", "The secret behind share links; without it, they are void"),
        ("~/.local/state/cok/run/PID.sock", "The control socket of a running client"),
    ],
    see_also: &["client.toml(5)", "cokd(1)"],
};

/// The manual page of the client's file.
pub(super) const PAGE: SettingsPage = SettingsPage {
    name: "client.toml",
    what: "the configuration of cok-client",
    path: "~/.config/cok/client.toml",
    description: &[
        "cok-client(1) reads this file when it starts, and when it is asked to reload. Flags and environment variables beat \
         it. `cok-client config set` changes it, and `cok-client config check` names every mistake in it.",
        "A reload applies the file as a whole or not at all. The server, the key and the transport need a restart.",
    ],
    example: include_str!("../../client.example.toml"),
    see_also: "cok-client(1)",
};
