"""Large bodies pass whole, and are kept by nobody on the way."""

import hashlib
import os

import pytest

GIB = 1 << 30
MIB = 1 << 20


@pytest.fixture(scope="module")
def random(nginx):
    """32 MiB in a file of the site."""
    data = os.urandom(32 * MIB)
    nginx.add("large-random.bin", data)
    return nginx.site / "large-random.bin", hashlib.sha256(data).digest()


def unknown_length(http):
    """curl's options for an upload that does not say how long it is."""
    return ["--header", "transfer-encoding: chunked"] if http == "--http1.1" else ["--header", "content-length:"]


def test_a_download_is_the_file(site, random, http):
    _, digest = random
    assert hashlib.sha256(site.curl("/large-random.bin", http).stdout).digest() == digest


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_an_upload_becomes_the_file(site, nginx, random, http, length):
    """nginx takes a PUT and stores it: 201, then 204 once it replaces the file, and the same bytes."""
    path, digest = random
    options = unknown_length(http) if length == "unknown" else []
    name = f"/uploads/{site.transport}-{http.strip('-')}-{length}.bin"
    for status in (b"201", b"204"):
        answer = site.curl(name, http, *options, "--upload-file", path, "--write-out", "%{http_code}")
        assert answer.stdout.endswith(status)
        assert hashlib.sha256((nginx.site / name[1:]).read_bytes()).digest() == digest


@pytest.fixture
def growth(site, web):
    """How much the daemon and the clients have grown since the test began, at their peak."""
    processes = {"cokd": site.daemon.process, "site's client": site.process, "web's client": web.process}
    # Once through everything, so that what is kept for good is there.
    site.curl("/random.bin")
    before = {}
    for name, process in processes.items():
        process.reset_peak()
        before[name] = process.memory()[0]
    yield lambda: {name: process.memory()[1] - before[name] for name, process in processes.items()}


def test_a_large_download_is_not_kept(site, nginx, growth, http):
    """1 GiB passes, and neither side grows by 16 MiB."""
    nginx.add_sparse("large.bin", GIB)
    answer = site.curl("/large.bin", http, "--output", "/dev/null", "--write-out", "%{size_download}", deadline=120)
    assert int(answer.stdout) == GIB
    assert max(growth().values()) < 16 * MIB, growth()


def test_a_large_upload_is_not_kept(web, growth, http, tmp_path):
    """1 GiB of unknown length passes, and neither side grows by 16 MiB."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(GIB)
    answer = web.curl("/hash", http, *unknown_length(http), "--upload-file", tmp_path / "large", deadline=180)
    assert f'"length": {GIB}'.encode() in answer.stdout
    assert max(growth().values()) < 16 * MIB, growth()
