"""Large bodies pass whole, and neither end buffers them."""

import hashlib
import os

import pytest

GIB = 1 << 30
MIB = 1 << 20


@pytest.fixture(scope="module")
def random(nginx):
    """A file of the site with 32 MiB of random bytes."""
    data = os.urandom(32 * MIB)
    nginx.add("large-random.bin", data)
    return nginx.site / "large-random.bin", hashlib.sha256(data).digest()


def unknown_length(http):
    """Returns curl's options for an upload without Content-Length."""
    return ["--header", "transfer-encoding: chunked"] if http == "--http1.1" else ["--header", "content-length:"]


def test_a_download_is_the_file(site, random, http):
    _, digest = random
    assert hashlib.sha256(site.curl("/large-random.bin", http).stdout).digest() == digest


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_an_upload_becomes_the_file(site, nginx, random, http, length):
    """nginx stores the same bytes for a PUT. It answers 201 for a new file and 204 for a replaced one."""
    path, digest = random
    options = unknown_length(http) if length == "unknown" else []
    name = f"/uploads/{site.transport}-{http.strip('-')}-{length}.bin"
    for status in (b"201", b"204"):
        answer = site.curl(name, http, *options, "--upload-file", path, "--write-out", "%{http_code}")
        assert answer.stdout.endswith(status)
        assert hashlib.sha256((nginx.site / name[1:]).read_bytes()).digest() == digest


@pytest.fixture
def growth(site, web):
    """Returns the growth of the peak memory of daemon and clients since the test began."""
    processes = {"cokd": site.daemon.process, "site's client": site.process, "web's client": web.process}
    # A first round through everything allocates what stays for good.
    site.curl("/random.bin")
    before = {}
    for name, process in processes.items():
        process.reset_peak()
        before[name] = process.memory()[0]
    yield lambda: {name: process.memory()[1] - before[name] for name, process in processes.items()}


def test_a_large_download_is_not_buffered(site, nginx, growth, http):
    """1 GiB passes, and each side grows by less than 16 MiB."""
    nginx.add_sparse("large.bin", GIB)
    answer = site.curl("/large.bin", http, "--output", "/dev/null", "--write-out", "%{size_download}", deadline=120)
    assert int(answer.stdout) == GIB
    assert max(growth().values()) < 16 * MIB, growth()


def test_a_large_upload_is_not_buffered(web, growth, http, tmp_path):
    """256 MiB of unknown length pass, and each side grows by less than 16 MiB."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(GIB // 4)
    answer = web.curl("/hash", http, *unknown_length(http), "--upload-file", tmp_path / "large", deadline=180)
    assert f'"length": {GIB // 4}'.encode() in answer.stdout
    assert max(growth().values()) < 16 * MIB, growth()
