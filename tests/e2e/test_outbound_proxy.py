"""A client behind a proxy: squid and dante lead out, and everything goes through them. Failures say whose they are."""

import socket

import pytest

from harness.authority import Authority
from harness.cok import DOMAIN, KEY
from harness.outbound import FORBIDDEN, Dante, Squid
from harness.ports import free_port
from harness.process import BIN_DIR, Process, wait_for

SECRETS = ("p@ss", "p%40ss", "w/ord", "w%2Ford")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("proxy-authority"))


@pytest.fixture(scope="module")
def proxies(authority):
    """Returns the proxy of a scheme."""
    dante = Dante()
    started = {
        "http": Squid(), "https": Squid(certificate=authority.files("127.0.0.1")), "socks5": dante, "socks5h": dante,
    }
    yield started.__getitem__
    for proxy in {*started.values()}:
        proxy.stop()


@pytest.fixture
def start(daemon, nginx, authority, tmp_path):
    """Starts clients. They resolve no name of the daemon, so only a proxy can lead there, unless `direct`."""
    running = []
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(daemon.ca.read_text() + authority.ca_file.read_text())

    def start(*options, server=None, direct=False, env=None, ca=trusted):
        options = (*options, *(("--connect-to", daemon.https) if direct else ()))
        process = Process(
            BIN_DIR / "cok-client", nginx.target, "--subdomain", "outbound", "--server", server or daemon.url(""),
            "--ca-file", ca, "--state-dir", tmp_path / "state", "--log-format", "json", "--verbose", *options,
            env={"COK_API_KEY": KEY, **(env or {})},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.stop()
        assert not [line for line in process.lines if any(secret in line for secret in SECRETS)]


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_it_goes_through_the_proxy_alone(daemon, proxies, start, scheme):
    proxy = proxies(scheme)
    # With socks5, this machine resolves the name.
    client = start("--proxy", proxy.url(scheme), direct=scheme == "socks5")
    entry = client.wait_event("connected")
    assert entry["transport"] == "ws"
    assert entry["reason"] == f"QUIC: the proxy {proxy.url(scheme, login='')} of --proxy carries only TCP"
    assert client.wait_event("fallback")["reason"] == entry["reason"]
    assert daemon.curl("outbound").stdout == b"<h1>hello</h1>\n"
    assert client.stop() == 0
    if scheme != "socks5":
        # dante logs addresses, with a dot before the port.
        ways = (f"{DOMAIN}:{daemon.port}", f"127.0.0.1.{daemon.port}")
        wait_for(lambda: any(way in proxy.asked() for way in ways), "the proxy logs where it was asked to lead")
    # Both log the user whom they let through.
    wait_for(lambda: "ada" in proxy.asked(), "the proxy logs the user")


def test_the_environment_and_the_file_name_it(daemon, proxies, start, tmp_path):
    url = proxies("http").url("http")
    config = tmp_path / "client.toml"
    config.write_text(f'proxy = "{url}"\n')
    for env, options, origin in [
        ({"HTTPS_PROXY": url}, (), "HTTPS_PROXY"),
        ({"all_proxy": url, "no_proxy": "elsewhere.test"}, (), "all_proxy"),
        ({}, ("--config", config), "the configuration file"),
    ]:
        reason = start(*options, env=env).wait_event("connected")["reason"]
        assert f" of {origin} carries only TCP" in reason
    # These go directly. On a busy machine, a WebSocket may be faster than QUIC there, too.
    for env, options in [
        ({"HTTPS_PROXY": url, "NO_PROXY": f".{DOMAIN.partition('.')[2]}"}, ()),
        ({"HTTPS_PROXY": url}, ("--proxy", "none")),
        ({"HTTPS_PROXY": "off"}, ("--config", config)),
    ]:
        assert "proxy" not in start(*options, env=env, direct=True).wait_event("connected")["reason"]


WRONG = {
    "no login": ("", "wants a user and a password", "name them in its URL, as in SCHEME://USER:PASSWORD@PROXY:PORT"),
    "wrong login": ("ada:wrong@", "does not accept the user and the password", "check the user and the password"),
}


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize(("login", "why", "advice"), WRONG.values(), ids=WRONG)
def test_a_login_that_fails(daemon, proxies, start, scheme, login, why, advice):
    proxy = proxies(scheme)
    reason = start("--proxy", proxy.url(scheme, login)).wait_event("disconnected")["reason"]
    shown, advice = proxy.url(scheme, ""), advice.replace("SCHEME", scheme)
    assert reason.startswith(f"cannot reach {daemon.url('', '')}: the proxy {shown} of --proxy {why}; {advice}"), reason


@pytest.mark.parametrize(
    ("scheme", "host", "why"),
    [
        ("http", FORBIDDEN, f"does not allow the way to {FORBIDDEN}:443: 403 Forbidden; ask its operator"),
        ("socks5h", FORBIDDEN, f"does not allow the way to {FORBIDDEN}:443: not allowed by its rules; ask its operator"),
        ("http", "nowhere.invalid", "as squid says of a name that it cannot resolve; "),
        ("socks5h", "nowhere.invalid", "the host is unreachable, or its name is unknown there; "),
        ("http", DOMAIN + ":1", f"cannot connect to {DOMAIN}:1: 503 Service Unavailable; is cokd running there"),
        ("socks5h", DOMAIN + ":1", f"cannot connect to {DOMAIN}:1: connection refused; is cokd running there"),
    ],
)
def test_a_way_that_the_proxy_does_not_find(proxies, start, scheme, host, why):
    client = start("--proxy", proxies(scheme).url(scheme), server=f"https://{host}")
    assert why in client.wait_event("disconnected")["reason"]


def test_a_proxy_that_is_none(daemon, nginx, start):
    port = free_port()
    for proxy, why in [
        (f"http://127.0.0.1:{port}", f"cannot be reached: connection refused by 127.0.0.1:{port}; check the proxy"),
        ("http://nowhere.invalid", "cannot be reached: its name cannot be resolved: "),
        (f"socks5h://{nginx.target.removeprefix('http://')}", "does not behave as one: its answer is not SOCKS5"),
        (f"http://{nginx.target.removeprefix('http://')}", f"does not connect to {DOMAIN}:{daemon.port}: 4"),
        (f"https://{daemon.http}", "cannot be reached: it does not speak TLS"),
    ]:
        reason = start("--proxy", proxy).wait_event("disconnected")["reason"]
        assert f"the proxy {proxy}" in reason and why in reason, reason


def test_a_proxy_that_is_silent(start):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = start("--proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "does not answer for " in client.wait_event("disconnected", deadline=40)["reason"]


def test_a_proxy_with_an_untrusted_certificate(daemon, proxies, start):
    client = start("--proxy", proxies("https").url("https"), ca=daemon.ca)
    reason = client.wait_event("disconnected")["reason"]
    assert "cannot be reached: its certificate is from an authority that is not trusted here" in reason


def test_a_proxy_that_reads_along(authority, start, daemon):
    with Squid(login=False, reads_along=authority.own_files()) as proxy:
        client = start("--proxy", proxy.url("http", login=""), ca=daemon.ca)
        reason = client.wait_event("disconnected")["reason"]
    assert 'its certificate is from "authority of the tests", which is not trusted here; the proxy' in reason


@pytest.mark.parametrize("proxy", ["ftp://ada:p%40ss@x", "http://ada:p@ss@", "http://ada:p@ss@x/path"])
def test_a_mistake_does_not_quote_the_secret(start, proxy, tmp_path):
    config = tmp_path / "client.toml"
    config.write_text(f'proxy = "{proxy}"\n')
    for options, env, place in [
        (("--proxy", proxy), {}, "the proxy of --proxy: "),
        ((), {"ALL_PROXY": proxy}, "the proxy of ALL_PROXY: "),
        (("--config", config), {}, "client.toml:1: proxy: the proxy of this file: "),
    ]:
        process = start(*options, env=env)
        assert process.wait_exit() == 2
        assert place in process.output()


def test_quic_does_not_pass_a_proxy(start):
    process = start("--proxy", "socks5h://127.0.0.1:1", "--transport", "quic")
    assert process.wait_exit() == 2
    assert "QUIC does not pass the proxy socks5h://127.0.0.1:1 of --proxy; use --transport auto" in process.output()


def test_quic_beats_a_proxy_of_the_environment(start):
    client = start("--transport", "quic", env={"HTTPS_PROXY": "http://ada:p%40ss@127.0.0.1:1"}, direct=True)
    said = client.wait_event("proxy_left_out")["message"]
    assert "the proxy http://127.0.0.1:1 of HTTPS_PROXY is not used" in said
    assert client.wait_event("connected")["transport"] == "quic"


def test_a_password_that_all_can_read(start, proxies, tmp_path):
    config = tmp_path / "client.toml"
    config.write_text(f'proxy = "{proxies("http").url("http")}"\n')
    for mode, warns in [(0o644, True), (0o600, False)]:
        config.chmod(mode)
        client = start("--config", config)
        client.wait_event("connected")
        assert ("chmod o-r" in client.output()) == warns
        client.stop()
