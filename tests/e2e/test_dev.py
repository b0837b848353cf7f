"""`cokd dev`: daemon, client and a sample site on one machine with one command."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from harness.cok import Dev
from harness.ports import free_port
from harness.process import BIN_DIR, HERE, Process, spawn, wait_for


@pytest.fixture
def dev(tmp_path):
    """Returns a function that starts `cokd dev`, with one state folder for the whole test."""
    running = []

    def start(*arguments, **more):
        running.append(Dev(tmp_path / "dev", *arguments, **more))
        return running[-1]

    yield start
    for process in running:
        process.stop()


def test_a_target_is_there_at_once(dev, nginx):
    """Traffic passes once the line is printed. The line has all details for visitors and other clients."""
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
    """Without a target, dev serves a page and a stream of events."""
    process = dev()
    assert b"<title>cok</title>" in process.curl(process.info["url"])
    events = subprocess.run(
        ["curl", "-sSN", "--max-time", "2.5", "--cacert", process.info["ca_file"], process.info["url"] + "/events"],
        capture_output=True, check=False,
    )
    # 28: curl's time-out, since the stream goes on.
    assert events.returncode == 28 and events.stdout.count(b"data: ") >= 2


def test_what_is_trusted_once_stays_trusted(dev, nginx):
    """The authority and the key survive a restart. Other users can't read the private keys."""
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
    """A separate client joins with the details that `cokd dev` prints."""
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


def test_the_text_output(nginx, tmp_path):
    """Without --json, dev prints the address, the authority, and a complete command."""
    process = Process(
        BIN_DIR / "cokd", "dev", nginx.target, "--https-port", "0", "--state-dir", tmp_path / "dev"
    )
    process.wait_line(lambda line: "Ctrl-C" in line, "last line of the greeting")
    lines = [line.strip() for line in process.lines]
    url = next(line for line in lines if line.startswith("https://"))
    assert urlsplit(url).hostname == "demo.cok.localhost"
    assert any(line == str(tmp_path / "dev/authority/ca.pem") for line in lines)
    curl = next(line for line in lines if line.startswith("curl "))
    assert subprocess.check_output(curl.split()) == b"<h1>hello</h1>\n"
    assert "Plain HTTP" not in process.output()
    assert any(f"--resolve {urlsplit(url).netloc}:127.0.0.1" in line for line in lines)
    assert f"leads to {nginx.target}, through a tunnel on this machine" in process.output()
    assert lines[-1] == "Stop with Ctrl-C."
    assert process.stop() == 0


def join_line(process):
    """Returns the command line for a second terminal, which `cokd dev` prints."""
    return process.wait_line(lambda line: line.strip() if "COK_API_KEY=" in line else None, "line for a second terminal")


def test_the_printed_command_works(network, serve, tmp_path):
    """A shell runs it unchanged in any folder, even if the program is not on the PATH and its path needs quotes."""
    serve(3000)
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    program = shutil.copy(BIN_DIR / "cokd", folder)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": "", "PATH": "/usr/bin:/bin"}
    process = Process(program, "dev", "--state-dir", "state", cwd=folder, env=home, inside=network.home)
    join = join_line(process)
    client = Process("sh", "-c", f"exec env {join}", cwd="/", env=home, inside=network.home)
    url = client.wait_stdout()
    assert url == "https://mine.cok.localhost:8443"
    curl = ["curl", "-sS", "--max-time", "20", "--cacert", folder / "state/authority/ca.pem", url]
    assert subprocess.check_output(network.home.command(*curl)) == b"hello\n"
    assert client.stop() == 0 and process.stop() == 0


@pytest.mark.parametrize("same", [True, False], ids=["this-program", "another-program"])
def test_the_printed_command_is_short_where_the_shell_finds_it(tmp_path, same):
    """The bare name is printed only if the PATH leads to the same program."""
    program = BIN_DIR / "cokd"
    link = tmp_path / "bin/cokd"
    link.parent.mkdir()
    link.symlink_to(program if same else "/bin/true")
    options = ["--https-port", "0", "--state-dir", tmp_path / "dev"]
    process = Process(program, "dev", *options, env={"PATH": f"{link.parent}:/usr/bin:/bin"})
    words = shlex.split(join_line(process))
    assert words[1:3] == ["cokd" if same else str(program.resolve()), "client"]
    assert process.stop() == 0


def run_dev(tmp_path, target, options, inside=HERE):
    """Runs a `cokd dev` that fails. Returns its exit code and its only line."""
    options = [str(word) for option in options.items() for word in option]
    command = inside.command(BIN_DIR / "cokd", "dev", target, *options, "--state-dir", tmp_path / "another")
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return result.returncode, line


@pytest.mark.parametrize("option", ["--https-port", "--http-port"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_named_port_in_use(nginx, tmp_path, option, kind):
    """The error says which option chooses another port."""
    with socket.socket(type=kind) as taken:
        # The port must be free over TCP, or the error would name TCP.
        taken.bind(("127.0.0.1", free_port()))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        code, line = run_dev(tmp_path, nginx.target, {"--https-port": 0, option: port})
    udp = " (UDP)" if kind == socket.SOCK_DGRAM else ""
    assert code == 1 and line.startswith(f"cokd: cannot listen on 127.0.0.1:{port}{udp}: Address already in use")
    assert option in line


OWN = ["{port}", "localhost:{port}", "[::1]:{port}", "0.0.0.0:{port}", "https://demo.cok.localhost:{port}", "127.1:{port}"]


@pytest.mark.parametrize("option", ["--https-port", "--http-port"])
@pytest.mark.parametrize("form", OWN)
def test_a_target_that_is_dev_itself(tmp_path, form, option):
    port = free_port()
    code, line = run_dev(tmp_path, form.format(port=port), {"--https-port": 0, option: port})
    assert code == 2 and line.startswith("cokd: cannot forward to ")
    assert f"cokd dev itself listens on port {port}" in line and option in line


def test_a_wrong_target(tmp_path):
    code, line = run_dev(tmp_path, "ftp://x", {})
    assert code == 2 and line.startswith('cokd: cannot forward to "ftp://x"')


@pytest.fixture
def serve(network):
    """Returns a function that starts web servers on a machine of this test alone."""
    running = []

    class Hello(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"hello\n")

        def log_message(self, *_arguments):
            pass

    def start(port):
        running.append(network.home.enter(lambda: ThreadingHTTPServer(("127.0.0.1", port), Hello)))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_an_application_on_8080(dev, network, serve):
    """The application keeps its port, since dev opens no port for plain HTTP by default."""
    serve(8080)
    process = dev("8080", options=(), inside=network.home)
    assert set(process.info["ports"]) == {"https", "admin"} and process.info["ports"]["https"] == process.port == 8443
    assert process.curl(process.info["url"]) == b"hello\n"


@pytest.mark.parametrize("taken", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_the_usual_port_in_use(dev, network, serve, taken):
    """dev takes another port and says so. The program on the usual port may be the target."""
    if taken == socket.SOCK_STREAM:
        serve(port := 8443)
    else:
        serve(port := 8080)
        udp = network.home.enter(lambda: socket.socket(type=taken))
        udp.bind(("127.0.0.1", 8443))
    process = dev(port, options=(), inside=network.home)
    assert process.port != 8443 and process.curl(process.info["url"]) == b"hello\n"
    notices = [line for line in process.lines if line.startswith("cokd: port 8443 is taken, so ")]
    assert len(notices) == 1 and str(process.port) in notices[0]


def test_the_usual_port_as_the_target(tmp_path, network):
    code, line = run_dev(tmp_path, "8443", {}, inside=network.home)
    assert code == 2 and "cokd dev itself listens on port 8443" in line and "--https-port" in line


def test_plain_http_redirects_where_it_is_wanted(dev, nginx):
    process = dev(nginx.target, "--http-port", "0")
    port = process.info["ports"]["http"]
    answer = process.curl(f"http://demo.cok.localhost:{port}/x", "--write-out", "%{redirect_url}")
    assert answer.decode().endswith(f"https://demo.cok.localhost:{process.port}/x")


@pytest.fixture
def start_curl():
    """Returns a function that starts curl as a visitor of a `cokd dev`."""

    def start(process, path):
        command = ["curl", "-sSN", "--max-time", "60", "--cacert", process.info["ca_file"], process.info["url"] + path]
        return spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def test_ctrl_c_ends_event_streams(dev, start_curl):
    process = dev()
    visitor = start_curl(process, "/events")
    assert visitor.stdout.read(9) == b"data: 1\n\n"
    process.popen.send_signal(signal.SIGINT)
    process.wait_line(lambda line: "stopping: 1 WebSocket or event stream is closed" in line, "the stop line")
    # Other requests have 10 s.
    assert process.wait_exit(6) == 0 and visitor.wait(5) == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_dev_at_once(dev, services, start_curl, second):
    """Until the second signal, the daemon waits for the running request."""
    process = dev(services.web)
    visitor = start_curl(process, "/silent")
    wait_for(lambda: services.open_streams == 1, "the request")
    process.popen.send_signal(signal.SIGINT)
    process.wait_line(lambda line: "stopping: 1 request may finish" in line and "Ctrl-C again" in line, "the stop line")
    assert process.curl(process.info["server"] + "/health/live")
    process.popen.send_signal(second)
    assert process.wait_exit(4) == 0 and visitor.wait(5) != 0
    wait_for(lambda: services.open_streams == 0, "the service sees the end")


def test_a_service_that_is_away(dev):
    """Each failed request logs one line with its path without the query, the failed address, and no other line."""
    port = free_port()
    process = dev(str(port))
    seen = len(process.lines)
    for path, query in (("/one", "?x=1"), ("/two", "")):
        assert process.curl(process.info["url"] + path + query, "--write-out", "%{http_code}").endswith(b"502")
        line = process.wait_line(lambda line, path=path: line if f"GET {path}: " in line else None, "failed request")
        assert str(port) in line and "refused" in line
    assert len(process.lines) == seen + 2
    assert process.stop() == 0


def test_a_tunnel_that_is_displaced(dev, nginx):
    """Another client of the same installation takes the name over. dev says so and stays."""
    process = dev(nginx.target)
    state = os.path.dirname(os.path.dirname(process.info["ca_file"]))
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--subdomain", "demo", "--server", process.info["server"],
        "--ca-file", process.info["ca_file"], "--state-dir", state, env={"COK_API_KEY": process.info["api_key"]},
    )
    process.wait_line(lambda line: "was taken over by cok-client" in line, "dev says who has the name")
    assert client.stop() == 0
