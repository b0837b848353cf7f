"""`cokd dev`: daemon, client and a site on one machine, by one command."""

import os
import subprocess
import urllib.request
from urllib.parse import urlsplit

import pytest

from harness.cok import Dev
from harness.process import BIN_DIR, Process


@pytest.fixture
def dev(tmp_path):
    """Starts `cokd dev` with a state folder that stays the same during the test."""
    running = []

    def start(*arguments):
        running.append(Dev(tmp_path / "dev", *arguments))
        return running[-1]

    yield start
    for process in running:
        process.stop()


def test_a_target_is_there_at_once(dev, nginx):
    """By the time that the line is printed, traffic passes; the line says all that others need."""
    process = dev(nginx.target)
    info = process.info
    assert set(info) >= {"url", "server", "ca_file", "api_key", "admin"}
    assert info["url"] == f"https://demo.cok.localhost:{process.port}"
    assert info["server"] == f"https://cok.localhost:{process.port}"
    assert process.curl(info["url"]) == b"<h1>hello</h1>\n"
    assert urllib.request.urlopen(info["admin"] + "/health/ready").read() == b"ready\n"
    assert process.stop() == 0


@pytest.mark.parametrize("form", ["{port}", "localhost:{port}", "127.0.0.1:{port}", "http://127.0.0.1:{port}"])
def test_forms_of_a_target(dev, nginx, form):
    process = dev(form.format(port=nginx.port), "--subdomain", "mine")
    assert process.info["url"].startswith("https://mine.cok.localhost:")
    assert process.curl(process.info["url"]) == b"<h1>hello</h1>\n"


def test_the_sample_site_streams(dev):
    """Without a target there is a page, and events one by one."""
    process = dev()
    assert b"<title>cok</title>" in process.curl(process.info["url"])
    events = subprocess.run(
        ["curl", "-sSN", "--max-time", "2.5", "--cacert", process.info["ca_file"], process.info["url"] + "/events"],
        capture_output=True, check=False,
    )
    # 28: curl's own time is up, while the stream goes on.
    assert events.returncode == 28 and events.stdout.count(b"data: ") >= 2


def test_what_is_trusted_once_stays_trusted(dev, nginx):
    """The authority and the key survive a restart; nobody else can read the key or the authority's."""
    first = dev(nginx.target)
    kept = (first.info["api_key"], open(first.info["ca_file"]).read())
    state = os.path.dirname(os.path.dirname(first.info["ca_file"]))
    assert first.stop() == 0
    second = dev(nginx.target)
    assert (second.info["api_key"], open(second.info["ca_file"]).read()) == kept
    secrets = [
        path for path in subprocess.check_output(["find", state, "-type", "f"], text=True).split()
        if any(secret in open(path, "rb").read() for secret in (b"PRIVATE KEY", kept[0].encode()))
    ]
    assert len(secrets) == 2 and all(os.stat(path).st_mode & 0o077 == 0 for path in secrets)


def test_a_second_terminal_joins(dev, nginx, tmp_path):
    """With what `cokd dev` prints, a client of its own joins."""
    process = dev()
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--subdomain", "mine", "--server", process.info["server"],
        "--ca-file", process.info["ca_file"], "--state-dir", tmp_path / "client",
        env={"COK_API_KEY": process.info["api_key"]},
    )
    url = client.wait_stdout()
    assert url == f"https://mine.cok.localhost:{process.port}"
    assert process.curl(url) == b"<h1>hello</h1>\n"
    assert client.stop() == 0


def test_what_it_says_to_a_person(nginx, tmp_path):
    """Without --json: the address, the authority, and a command for a second terminal that works as it stands."""
    process = Process(
        BIN_DIR / "cokd", "dev", nginx.target, "--https-port", "0", "--http-port", "0", "--state-dir", tmp_path / "dev"
    )
    process.wait_line(lambda line: "Ctrl-C" in line, "last line of the greeting")
    lines = [line.strip() for line in process.lines]
    url = next(line for line in lines if line.startswith("https://"))
    assert urlsplit(url).hostname == "demo.cok.localhost"
    assert any(line == str(tmp_path / "dev/authority/ca.pem") for line in lines)
    curl = next(line for line in lines if line.startswith("curl "))
    assert subprocess.check_output(curl.split()) == b"<h1>hello</h1>\n"
    join = next(line for line in lines if "cok-client 3000" in line)
    join = join.replace("cok-client 3000", f"exec {BIN_DIR}/cok-client {nginx.port} --state-dir {tmp_path}/client")
    client = Process("bash", "-c", join)
    assert client.wait_stdout() == url.replace("demo.", "mine.")
    assert client.stop() == 0 and process.stop() == 0


def test_a_port_in_use(dev, nginx, tmp_path):
    process = dev(nginx.target)
    result = subprocess.run(
        [BIN_DIR / "cokd", "dev", nginx.target, "--https-port", str(process.port), "--http-port", "0",
         "--state-dir", tmp_path / "another"],
        capture_output=True, text=True, timeout=30, check=False,
    )
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"cokd: cannot listen on 127.0.0.1:{process.port}: Address already in use")
