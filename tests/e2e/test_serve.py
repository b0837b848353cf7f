"""`cok-client serve DIR` and `serve` in the file: the files of a folder, and nothing else, at a public address."""

import hashlib
import os
import subprocess

import pytest

from harness.cok import GIVE_BACK, KEY
from harness.process import BIN_DIR, Process, wait_for

MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path):
    """A folder with some files. Next to it are secrets, and in it are links to them."""
    root = tmp_path / "site"
    (root / "docs").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / ".git").mkdir()
    (root / "index.html").write_text("<h1>home</h1>")
    (root / "docs/a.txt").write_text("0123456789")
    (root / "docs/<i>&'.txt").write_text("odd")
    (root / ".git/config").write_text("secret")
    (root / ".env").write_text("secret")
    (tmp_path / "key").write_text("secret")
    (root / "out").symlink_to("../key")
    (root / "up").symlink_to("..")
    (root / "absolute").symlink_to(tmp_path / "key")
    (root / "dot").symlink_to(".env")
    (root / "inside").symlink_to("docs/a.txt")
    return root


@pytest.fixture
def serve(daemon, transport, tmp_path):
    """Returns a function that serves a folder under a name."""
    running = []

    def start(folder, name, *options):
        process = Process(
            BIN_DIR / "cok-client", "serve", folder, "--subdomain", name, "--transport", transport,
            "--server", daemon.url(""), "--connect-to", daemon.https, "--ca-file", daemon.ca,
            "--state-dir", tmp_path / "state", *options, env={"COK_API_KEY": KEY, **GIVE_BACK},
        )
        running.append(process)
        assert process.wait_stdout() == daemon.url(name, "")
        return process

    yield start
    for process in running:
        process.stop()


def head_and_body(result):
    head, _, body = result.stdout.partition(b"\r\n\r\n")
    status, *fields = head.decode().splitlines()
    return int(status.split()[1]), {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}, body


def test_files_with_ranges_conditions_and_listings(daemon, serve, files, http):
    serve(files, "serve-files")

    def get(path, *options):
        return head_and_body(daemon.curl("serve-files", path, http, "--include", *options))

    status, fields, body = get("/")
    assert (status, fields["content-type"], body) == (200, "text/html; charset=utf-8", b"<h1>home</h1>")
    status, fields, body = get("/docs/a.txt")
    assert (status, fields["content-length"], body) == (200, "10", b"0123456789")
    assert fields["accept-ranges"] == "bytes"
    for condition in (f"If-None-Match: {fields['etag']}", f"If-Modified-Since: {fields['last-modified']}"):
        assert get("/docs/a.txt", "-H", condition)[::2] == (304, b"")
    status, part, body = get("/docs/a.txt", "-H", "Range: bytes=2-4", "-H", f"If-Range: {fields['etag']}")
    assert (status, part["content-range"], body) == (206, "bytes 2-4/10", b"234")
    status, part, _ = get("/docs/a.txt", "-H", "Range: bytes=10-")
    assert (status, part["content-range"]) == (416, "bytes */10")
    status, head, body = get("/docs/a.txt", "--head")
    assert (status, head["content-length"], head["etag"], body) == (200, "10", fields["etag"], b"")
    assert get("/inside")[2] == b"0123456789"
    status, fields, _ = get("/docs?x=1")
    assert (status, fields["location"]) == (307, "/docs/?x=1")
    status, fields, body = get("/docs/")
    assert status == 200 and b'href="./a.txt"' in body and b"&lt;i&gt;&amp;&#39;.txt" in body and b"<i>" not in body
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, fields, _ = get("/docs/a.txt", "--request", method)
        assert (status, fields["allow"]) == (405, "GET, HEAD")


HIDDEN = [
    "/.env", "/%2eenv", "/.git/config", "/.git/", "/docs/../.env", "/docs/%2e%2e/.env", "/../key", "/%2e%2e/key",
    "/..%2fkey", "/%2e%2e%2fkey", "/%252e%252e%252fkey", "/..%5ckey", "/docs/..;/key", "/out", "/out/", "/up", "/up/",
    "/up/key", "/absolute", "/dot", "/docs/a.txt/", "/docs/a.txt%00", "//etc/passwd", "//docs/a.txt", "/none",
]


def test_nothing_leads_out_of_the_folder(daemon, serve, files, http):
    """Over both versions of HTTP, and with the path as it is."""
    serve(files, "serve-hidden")
    for path in HIDDEN:
        status, _, body = head_and_body(daemon.curl("serve-hidden", path, http, "--include"))
        assert status in (400, 404) and b"secret" not in body, path


def test_a_listing_names_nothing_hidden(daemon, serve, files):
    (files / "index.html").unlink()
    serve(files, "serve-listing")
    body = daemon.curl("serve-listing").stdout.decode()
    links = [part.split('"')[0] for part in body.split('href="')[1:]]
    assert links == ["./docs/", "./empty/", "./inside"]


def test_large_files_stream_with_little_memory(daemon, serve, files):
    """A visitor who stops reading stops the reading of the file. Another one gets all of it meanwhile."""
    size = 192 * MIB
    with open(files / "large", "wb") as file:
        file.truncate(size)
        for at in range(0, size, 16 * MIB):
            file.seek(at)
            file.write(os.urandom(1024))
    process = serve(files, "serve-large")
    assert daemon.curl("serve-large", "/docs/a.txt").stdout == b"0123456789"
    _, before = process.memory()
    stalled = daemon.start_curl("serve-large", "/large")
    assert stalled.stdout.read(1)
    whole = daemon.start_curl("serve-large", "/large")
    hashed = hashlib.sha256()
    while part := whole.stdout.read(MIB):
        hashed.update(part)
    assert whole.wait(20) == 0
    with open(files / "large", "rb") as file:
        assert hashed.hexdigest() == hashlib.file_digest(file, "sha256").hexdigest()
    _, most = process.memory()
    assert most < before + 64 * MIB
    read = int(dict(line.split(": ") for line in open(f"/proc/{process.pid}/io"))["rchar"])
    assert read < size + 96 * MIB, "the stalled visitor's file was read on"
    stalled.kill()


def test_a_folder_that_is_built_again(daemon, serve, files):
    """The client serves what stands at the path now. While nothing does, the owner reads why."""
    process = serve(files, "serve-built")
    files.rename(files.with_name("old"))
    assert daemon.curl("serve-built", "/", "--write-out", "%{http_code}").stdout.endswith(b"502")
    process.wait_line(lambda line: f"cannot read in {files}: " in line, "why")
    files.mkdir()
    (files / "index.html").write_text("new")
    assert daemon.curl("serve-built").stdout == b"new"


def test_a_folder_of_the_file_and_a_reload(daemon, files, tmp_path):
    """A reload that does not change the folder does not change the tunnel."""
    (tmp_path / "api-key").write_text(KEY)
    config = tmp_path / "client.toml"
    text = f'server = "{daemon.url("")}"\napi_key_file = "api-key"\nca_file = "{daemon.ca}"\n[tunnels.serve-file]\n'
    config.write_text(text + 'serve = "site"\n')
    client = Process(
        BIN_DIR / "cok-client", "--config", config, "--connect-to", daemon.https, "--state-dir", tmp_path / "state",
        "--log-format", "json",
    )
    assert client.wait_stdout() == daemon.url("serve-file", "")
    assert daemon.curl("serve-file", "/docs/a.txt").stdout == b"0123456789"

    def reload():
        command = [BIN_DIR / "cok-client", "reload", "--state-dir", tmp_path / "state"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert reload().stdout == f"client {client.pid}: reloaded: no tunnel has changed\n"
    config.write_text(text + 'serve = "site/docs"\n')
    assert "changed serve-file" in reload().stdout
    wait_for(lambda: daemon.curl("serve-file", "/a.txt").stdout == b"0123456789", "the other folder")
    config.write_text(text + 'serve = "none"\n')
    refused = reload()
    assert refused.returncode == 2 and f"cannot serve the folder {tmp_path}/none: " in refused.stderr
    assert client.stop() == 0


@pytest.mark.parametrize("folder", ["none", "index.html"])
def test_what_cannot_be_served(files, folder):
    command = [BIN_DIR / "cok-client", "serve", files / folder, "--server", "x", "--api-key", "k"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith(f"cok-client: cannot serve the folder {files / folder}: ")
