"""Command lines and configurations: each mistake gets one clear line and the documented exit code."""

import hashlib
import json
import os
import ssl
import subprocess

import pytest
from cryptography import x509

from harness.cok import KEY, digest
from harness.process import BIN_DIR, Process


def run(program, *options, env=None):
    return subprocess.run(
        [BIN_DIR / program, *map(str, options)], capture_output=True, text=True, timeout=30, check=False,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", **(env or {})},
    )


def test_check_names_every_mistake(tmp_path):
    config = tmp_path / "cokd.toml"
    config.write_text(
        'domain = "x"\n[listen]\nhttp = ["nowhere"]\nhtpps = []\n'
        '[tls]\nmode = "files"\ncert = "/no"\nkey = "/no"\n'
    )
    result = run("cokd", "check", "--config", config)
    assert result.returncode == 2 and result.stdout == ""
    places = [line.split(": ")[:2] for line in result.stderr.splitlines()]
    assert places == [
        [f"{config}:1", "domain"],
        [f"{config}:3", "listen.http"],
        [f"{config}:4", "listen.htpps"],
        [f"{config}:7", "tls.cert"],
        [f"{config}:8", "tls.key"],
    ]
    assert 'did you mean "https"?' in result.stderr
    assert run("cokd", "run", "--config", config).stderr == result.stderr


DIGEST = "1" * 64
MISTAKES = [
    ('domain = "a.b"\ncolour = "red"', 2, "colour"),
    ("domain = 7", 1, "domain"),
    ('domain = "a.b"\nstate_dir = true', 2, "state_dir"),
    ('domain = "a.b"\n[limits]\nreconnect_grace = "soon"', 3, "limits.reconnect_grace"),
    ('domain = "a.b"\n[limits]\nreconnect_grace = 10', 3, "limits.reconnect_grace"),
    ('domain = "a.b"\n[limits]\n\nmax_held = -1', 4, "limits.max_held"),
    ('domain = "a.b"\n[limits]\ninitial_window = "1TiB"', 3, "limits.initial_window"),
    ('domain = "a.b"\n[[keys]]\nname = "x"\nsecret_sha256 = "abc"', 4, "keys[0].secret_sha256"),
    (f'domain = "a.b"\n[[keys]]\nname = "x"\nsecret_sha256 = "{"0" * 64}"', 4, "keys[0].secret_sha256"),
    (f'domain = "a.b"\n[[keys]]\nsecret_sha256 = "{DIGEST}"', 2, "keys[0].name"),
    (f'domain = "a.b"\n[[keys]]\nname = "x"\nsecret_sha256 = "{DIGEST}"\nsubdomains = ["*-*"]', 5, "keys[0].subdomains"),
    ('domain = "a.b"\n[proxies]\ntrusted = ["everyone"]', 3, "proxies.trusted"),
    ('domain = "a.b"\n[tls\n', 2, ""),
]


@pytest.mark.parametrize(("text", "line", "key"), MISTAKES, ids=[row[2] or "syntax" for row in MISTAKES])
def test_check_names_a_mistake(tmp_path, text, line, key):
    """The error names only the mistake's line and key."""
    config = tmp_path / "cokd.toml"
    config.write_text(text + ("" if "[tls" in text else '\n[tls]\nmode = "self-signed"\n'))
    result = run("cokd", "check", "--config", config)
    assert result.returncode == 2 and result.stdout == ""
    (said,) = result.stderr.splitlines()
    assert said.startswith(f"{config}:{line}: {key}"), said


def test_files_for_tls_are_read_at_the_start(tmp_path):
    """The daemon names an invalid certificate before it listens."""
    (tmp_path / "cert.pem").write_text("no certificate")
    (tmp_path / "key.pem").write_text("no key")
    config = tmp_path / "cokd.toml"
    config.write_text(
        f'domain = "a.b"\nstate_dir = "{tmp_path}"\n'
        '[listen]\nhttps = ["127.0.0.1:0"]\nhttp = []\nadmin = "127.0.0.1:0"\n'
        f'[tls]\nmode = "files"\ncert = "{tmp_path}/cert.pem"\nkey = "{tmp_path}/key.pem"\n'
    )
    result = run("cokd", "run", "--config", config)
    assert result.returncode in (1, 2) and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"{tmp_path}/cert.pem" in line


def test_check_of_a_good_configuration(daemon):
    result = run("cokd", "check", "--config", daemon.config)
    assert (result.returncode, result.stdout) == (0, f"{daemon.config}: no mistakes\n")


@pytest.mark.parametrize(
    ("path", "why"),
    [("/no/cokd.toml", "No such file or directory (os error 2)"), ("/proc", "Is a directory (os error 21)")],
    ids=["missing", "folder"],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_configuration_that_cannot_be_read(command, path, why):
    """The exit code marks an operator's mistake, so a service manager does not restart it."""
    result = run("cokd", command, "--config", path)
    assert result.returncode == 2
    assert result.stderr == f"cannot read the configuration {path}: {why}\n"


def test_a_port_in_use(daemon, tmp_path):
    config = tmp_path / "cokd.toml"
    text = daemon.config.read_text().replace('https = ["127.0.0.1:0"]', f'https = ["{daemon.https}"]')
    config.write_text(text)
    result = run("cokd", "run", "--config", config)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"cokd: cannot listen on {daemon.https}: Address already in use")


def test_a_key_is_shown_once_and_kept_as_a_digest(tmp_path):
    options = ["--subdomain", "demo-*", "--expires", "90d", "--max-sessions", "2"]
    result = run("cokd", "key", "create", "--for-config", "--name", "laptop", *options)
    assert result.returncode == 0
    key = result.stdout.strip()
    assert key.startswith("cok_") and len(key) > 40 and key not in result.stderr
    config = tmp_path / "cokd.toml"
    config.write_text('domain = "a.b"\n[tls]\nmode = "self-signed"\n' + result.stderr)
    assert run("cokd", "check", "--config", config).returncode == 0
    assert hashlib.sha256(key.encode()).hexdigest() in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["3000"], "no server"),
        (["3000", "--server", "http://x"], "must be https://"),
        (["3000", "--server", "x"], "no API key"),
        (["3000", "--server", "x", "--api-key-file", "/no"], "cannot read the API key file /no"),
        (["3000", "--server", "x", "--api-key", "k", "--ca-file", "/no"], "cannot read the CA file /no"),
        (["ftp://x", "--server", "x", "--api-key", "k", "--state-dir", "/tmp"], 'cannot forward to "ftp://x"'),
        (["logni", "--server", "x", "--api-key", "k", "--state-dir", "/tmp"], 'there is no tunnel "logni"'),
        (["http", "logni", "--server", "x", "--api-key", "k", "--state-dir", "/tmp"], 'there is no tunnel "logni"'),
        (["tcp", "22", "--server", "x", "--api-key", "k", "--state-dir", "/tmp"], '"tcp" is no kind of tunnel'),
        (["--server", "x", "--api-key", "k", "--state-dir", "/tmp"], "nothing to forward to"),
        (["3000", "--config", "/no"], "cannot read the configuration /no"),
    ],
)
@pytest.mark.parametrize("client", ["cok-client", "cokd client"])
def test_wrong_usage(client, options, said):
    result = run(*client.split(), *options)
    assert result.returncode == 2, result
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{client}: ") and said in line


def test_unknown_flags():
    assert run("cok-client", "--frobnicate").returncode == 2
    assert run("cokd", "--frobnicate").returncode == 2
    wrong = run("cokd", "client", "--frobnicate")
    assert wrong.returncode == 2 and "Usage: cokd client" in wrong.stderr


def test_the_help_of_the_client_in_cokd():
    """It equals cok-client's help except for the command's name."""
    own, other = run("cok-client", "--help").stdout, run("cokd", "client", "--help").stdout
    assert "Usage: cokd client [OPTIONS] [TARGET]..." in other and "Exit codes:" in other
    assert own[own.index("Commands:"):].replace("cok-client", "cokd client") == other[other.index("Commands:"):]
    for command in ("completions", "man"):
        arguments = ["bash"] if command == "completions" else []
        assert run("cokd", "client", command, *arguments).stdout == run("cok-client", command, *arguments).stdout


def test_man_pages_and_completions_have_the_client_in_cokd(tmp_path):
    """Man pages and completions know the subcommand with its options."""
    assert run("cokd", "man", tmp_path).returncode == 0
    assert {"cokd.1", "cokd-dev.1", "cokd-client.1", "cokd-client-service-install.1"} <= set(os.listdir(tmp_path))
    assert "connect\\-to" in (tmp_path / "cokd-client.1").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert "connect-to" in run("cokd", "completions", shell).stdout


def test_cokd_client_is_a_client(daemon, nginx, tmp_path):
    common = ["--server", daemon.url(""), "--connect-to", daemon.https, "--ca-file", daemon.ca, "--state-dir", tmp_path]
    refused = run("cokd", "client", nginx.target, *common, "--api-key", "cok_wrong")
    assert refused.returncode == 3 and refused.stderr.splitlines()[-1].startswith("cokd client: refused by the server: ")
    client = Process(BIN_DIR / "cokd", "client", nginx.target, "--subdomain", "inside", *common, env={"COK_API_KEY": KEY})
    assert client.wait_stdout() == daemon.url("inside", "")
    assert daemon.curl("inside").stdout == b"<h1>hello</h1>\n"
    assert client.stop() == 0


def refusal(client):
    code = client.process.wait_exit()
    return code, client.process.wait_event("refused")["reason"]


def test_a_refusal_is_one_line(daemon, nginx, tmp_path):
    result = run(
        "cok-client", nginx.target, "--server", daemon.url(""), "--connect-to", daemon.https, "--ca-file", daemon.ca,
        "--api-key", "cok_wrong", "--state-dir", tmp_path,
    )
    assert result.returncode == 3 and result.stdout == ""
    begun, line = result.stderr.splitlines()
    assert begun.endswith(f" INFO connecting to https://tunnel.test:{daemon.port}")
    assert line.startswith("cok-client: refused by the server: the API key is unknown or has expired; ask ")


def test_a_wrong_key(tunnel, nginx):
    code, line = refusal(tunnel(nginx.target, "wrong", wait=False, key="cok_wrong"))
    assert code == 3 and line.startswith("refused by the server: the API key is unknown")


def test_a_taken_name(site, daemon, tunnel, nginx):
    options = ("--name-timeout", "0")
    code, line = refusal(tunnel(nginx.target, "site", wait=False, state=daemon.folder / "another", options=options))
    assert code == 3 and 'the name "site" is in use' in line and "--subdomain" in line


def test_a_forbidden_name_and_too_many(own_daemon, nginx, transport):
    keys = f'[[keys]]\nname = "narrow"\nsecret_sha256 = "{digest("narrow")}"\nsubdomains = ["n-*"]\nmax_tunnels = 1\n'
    daemon = own_daemon(keys=keys, transport=transport)
    code, line = refusal(daemon.client(nginx.target, "wide", wait=False, key="narrow"))
    assert code == 3 and 'may not use the name "wide"' in line
    first = daemon.client(nginx.target, "n-1", key="narrow")
    code, line = refusal(daemon.client(nginx.target, "n-2", wait=False, key="narrow"))
    assert code == 3 and "has its 1 tunnel already" in line
    first.stop()


def test_an_absent_daemon_is_waited_for(daemon, nginx, tmp_path):
    """The client keeps trying even after a failed first try. A signal ends it with exit code 0."""
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--server", "https://tunnel.test:1", "--connect-to", "127.0.0.1:1",
        "--api-key", KEY, "--ca-file", daemon.ca, "--state-dir", tmp_path, "--log-format", "json",
    )
    for _ in range(2):
        entry = client.wait_event("disconnected")
    assert entry["reason"] == (
        "cannot reach https://tunnel.test:1: connection refused by 127.0.0.1:1; is cokd running there, and on this port?"
    )
    assert entry["message"] == f"not connected yet: {entry['reason']}"
    assert client.wait_event("connecting")["message"] == "connecting to https://tunnel.test:1"
    client.popen.terminate()
    assert client.wait_exit() == 0


def test_the_daemon_picks_a_name_by_default(daemon, nginx, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    config = tmp_path / "client.toml"
    config.write_text(f'server = "{daemon.url("")}"\napi_key_file = "key"\nca_file = "{daemon.ca}"\ntransport = "ws"\n')
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--config", config, "--connect-to", daemon.https, "--state-dir", tmp_path,
    )
    url = client.wait_stdout()
    name = url.removeprefix("https://").split(".")[0]
    assert len(name) == 8 and daemon.curl(name, "/").stdout == b"<h1>hello</h1>\n"
    client.stop()


def test_flags_beat_environment_beats_file(daemon, nginx, tmp_path):
    (tmp_path / "key").write_text(KEY)
    config = tmp_path / "client.toml"
    config.write_text(
        f'server = "{daemon.url("")}"\napi_key_file = "key"\nca_file = "{daemon.ca}"\n'
        f'[tunnels.from-file]\ntarget = "{nginx.target}"\n'
    )
    common = ["--config", config, "--connect-to", daemon.https, "--state-dir", tmp_path]
    for options, env, name in [
        ([], {}, "from-file"),
        ([], {"COK_SUBDOMAIN": "from-env"}, "from-env"),
        (["--subdomain", "from-flag"], {"COK_SUBDOMAIN": "from-env"}, "from-flag"),
        ([nginx.target], {"COK_SUBDOMAIN": "from-env"}, "from-env"),
    ]:
        client = Process(BIN_DIR / "cok-client", *options, *common, env=env)
        assert client.wait_stdout() == f"https://{name}.tunnel.test:{daemon.port}"
        assert client.stop() == 0
    client = Process(BIN_DIR / "cok-client", nginx.target, *common, env={"COK_API_KEY": "cok_wrong"})
    assert client.wait_exit() == 3
    client = Process(BIN_DIR / "cok-client", nginx.target, *common, env={"COK_SERVER": "http://nowhere"})
    assert client.wait_exit() == 2


def test_an_expired_key(own_daemon, nginx, transport):
    keys = f'[[keys]]\nname = "old"\nsecret_sha256 = "{digest("old")}"\nexpires = "2020-01-01T00:00:00Z"\n'
    daemon = own_daemon(keys=keys, transport=transport)
    code, line = refusal(daemon.client(nginx.target, "late", wait=False, key="old"))
    assert code == 3 and line.startswith("refused by the server: the API key is unknown or has expired")


def test_an_untrusted_daemon(daemon, own_daemon, nginx, transport):
    """A client does not send its key to a daemon with an untrusted certificate. It says so and keeps trying."""
    another = own_daemon(transport=transport)
    another.ca = daemon.ca
    client = another.client(nginx.target, "trusting", wait=False)
    for _ in range(2):
        entry = client.process.wait_event("disconnected", start=len(client.process.lines))
        assert "certificate" in entry["reason"]
    assert client.stop() == 0
    assert " online: key " not in another.process.output()


def test_the_tunnels_of_the_file(daemon, nginx, tmp_path):
    (tmp_path / "key").write_text(KEY)
    config = tmp_path / "client.toml"
    config.write_text(
        f'server = "{daemon.url("")}"\napi_key_file = "key"\nca_file = "{daemon.ca}"\n'
        f'[tunnels.one]\ntarget = "{nginx.target}"\n[tunnels.two]\ntarget = "{nginx.target}"\nsubdomain = "second"\n'
    )
    client = Process(BIN_DIR / "cok-client", "--config", config, "--connect-to", daemon.https, "--state-dir", tmp_path)
    assert {client.wait_stdout(), client.wait_stdout()} == {
        f"https://one.tunnel.test:{daemon.port}", f"https://second.tunnel.test:{daemon.port}"
    }
    assert daemon.curl("one", "/").stdout == daemon.curl("second", "/").stdout == b"<h1>hello</h1>\n"
    assert client.stop() == 0


def test_a_tunnel_of_the_file_by_its_name(daemon, nginx, tmp_path):
    """The client opens only the named tunnel, under its own or another subdomain. An unknown name opens none."""
    (tmp_path / "key").write_text(KEY)
    config = tmp_path / "client.toml"
    config.write_text(
        f'server = "{daemon.url("")}"\napi_key_file = "key"\nca_file = "{daemon.ca}"\n'
        f'[tunnels.web]\ntarget = "{nginx.target}"\nsubdomain = "by-name"\n[tunnels.api]\ntarget = "localhost"\n'
    )
    common = ["--config", config, "--connect-to", daemon.https, "--state-dir", tmp_path]
    for options, name in [(["web"], "by-name"), (["web", "--subdomain", "by-flag"], "by-flag")]:
        client = Process(BIN_DIR / "cok-client", *options, *common)
        assert client.wait_stdout() == f"https://{name}.tunnel.test:{daemon.port}"
        assert daemon.curl(name, "/").stdout == b"<h1>hello</h1>\n"
        assert client.stop() == 0
    result = run("cok-client", "wbe", *common)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line == (
        'cok-client: there is no tunnel "wbe": the configuration file has api, web; a TARGET looks like 3000, host:3000, '
        "http://…, https://…, h2c://… or unix:/path"
    )


def test_a_word_in_the_file_is_no_target(tmp_path):
    config = tmp_path / "client.toml"
    config.write_text('[tunnels.web]\ntarget = "login"\n')
    result = run("cok-client", "--config", config)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'cok-client: {config}:2: tunnels.web.target: cannot forward to "login"')


def test_a_unit_of_the_user(tmp_path):
    """`cok-client service` writes and removes only its own unit. Without a service manager it says what to do."""
    settings = tmp_path / "settings"
    unit, config = settings / "systemd/user/cok-client.service", settings / "cok/client.toml"

    def service(*arguments):
        return run("cok-client", "service", *arguments, env={"XDG_CONFIG_HOME": str(settings), "PATH": "/nonexistent"})

    missing = service("install")
    assert missing.returncode == 2 and str(config) in missing.stderr and not unit.exists()
    config.parent.mkdir(parents=True)
    config.write_text('server = "https://tunnel.test"\n')
    empty = service("install")
    assert empty.returncode == 2 and "has no [tunnels.NAME]" in empty.stderr and not unit.exists()
    absent = service("status")
    assert absent.returncode == 1 and "cok-client service install" in absent.stderr
    assert service("uninstall").returncode == 0

    config.write_text('server = "https://tunnel.test"\n[tunnels.demo]\ntarget = "3000"\n')
    for _ in range(2):
        installed = service("install")
        assert installed.returncode == 0 and installed.stderr == ""
        assert f"wrote {unit}" in installed.stdout and "there is no systemctl here" in installed.stdout
        assert "systemctl --user enable --now cok-client" in installed.stdout
    proxy = {"HTTPS_PROXY": "http://me:secret@proxy:3128"}
    warned = run("cok-client", "service", "install", env={"XDG_CONFIG_HOME": str(settings), "PATH": "/nonexistent", **proxy})
    assert warned.returncode == 0 and "the proxy http://proxy:3128 of HTTPS_PROXY, which the service" in warned.stderr
    assert "secret" not in warned.stdout + warned.stderr
    assert f'ExecStart="{BIN_DIR / "cok-client"}" --config "{config}" --keep-trying --inspect off' in unit.read_text().splitlines()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in unit.read_text().splitlines()
    assert service("status").stdout.startswith(f"installed: {unit}\n")
    removed = service("uninstall")
    assert removed.returncode == 0 and f"removed {unit}" in removed.stdout and not unit.exists()

    inside = run("cokd", "client", "service", "install", env={"XDG_CONFIG_HOME": str(settings), "PATH": "/nonexistent"})
    assert inside.returncode == 0, inside
    assert f'ExecStart="{BIN_DIR / "cokd"}" client --config "{config}" --keep-trying --inspect off' in unit.read_text().splitlines()

    unit.write_text("[Service]\nExecStart=/usr/bin/mine\n")
    for refused in (service("install"), service("uninstall")):
        assert refused.returncode == 1 and f"{unit} was not written by this command" in refused.stderr
    assert unit.read_text() == "[Service]\nExecStart=/usr/bin/mine\n"


@pytest.mark.parametrize(
    "command",
    [
        ("cok-client", "config", "path"), ("cok-client", "man"), ("cok-client", "completions", "bash"),
        ("cok-client", "status", "--json", "--state-dir", "/nonexistent"),
        ("cokd", "key", "create", "--name", "demo", "--for-config"), ("cokd", "man"),
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves(command):
    program, *options = command
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [BIN_DIR / program, *options], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
        env={"HOME": "/nonexistent"},
    )
    os.close(writer)
    assert result.returncode == 1 and "panicked" not in result.stderr and "Broken pipe" not in result.stderr
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [BIN_DIR / program, *options], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
            env={"HOME": "/nonexistent"},
        )
    assert result.returncode == 1 and "cannot write to standard output: No space left" in result.stderr


def test_the_dates_of_a_self_signed_certificate_are_shown(own_daemon):
    """They are those of the certificate that the daemon serves."""
    daemon = own_daemon()
    shown = json.loads(run("cokd", "cert", "status", "--json", "--config", daemon.config).stdout)
    with daemon.tls().wrap_socket(daemon.connect(), server_hostname=daemon.host("any")) as visitor:
        served = visitor.getpeercert()
    assert ssl.cert_time_to_seconds(served["notAfter"]) == shown["not_after"]
    assert ssl.cert_time_to_seconds(served["notBefore"]) == shown["not_before"]
    assert int(shown["serial"].replace(":", ""), 16) == int(served["serialNumber"], 16)
    assert shown["authority"] == str(daemon.ca) and shown["managed"]
    authority = x509.load_pem_x509_certificate(daemon.ca.read_bytes())
    assert shown["authority_not_after"] == authority.not_valid_after_utc.timestamp()
    text = run("cokd", "cert", "status", "--config", daemon.config).stdout
    assert "\nexpires: " in text and f"\nauthority:    {daemon.ca}, until 20" in text
    # Without a daemon, the files say the same.
    daemon.stop()
    stored = json.loads(run("cokd", "cert", "status", "--json", "--config", daemon.config).stdout)
    assert stored == shown | {"managed": False}
