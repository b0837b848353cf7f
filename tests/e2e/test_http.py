"""Ordinary HTTP through a tunnel to nginx and aiohttp."""

import hashlib
import os

import pytest

GIB = 1 << 30
MIB = 1 << 20


def test_get_and_head(site, http):
    assert site.curl("/", http).stdout == b"<h1>hello</h1>\n"
    head = site.curl("/", http, "--head").stdout
    assert b"content-length: 15" in head.lower() and b"etag" in head.lower()


def test_ranges(site, nginx, http):
    data = (nginx.site / "random.bin").read_bytes()
    assert site.curl("/random.bin", http, "--range", "1000-1999").stdout == data[1000:2000]
    head = site.curl("/random.bin", http, "--range", "5-", "--head").stdout.lower()
    assert b" 206" in head.splitlines()[0] and b"content-range: bytes 5-1048575/1048576" in head


def test_conditional_requests(site, http):
    head = site.curl("/random.bin", http, "--head").stdout.decode().lower()
    etag = next(line.split(": ")[1] for line in head.splitlines() if line.startswith("etag"))
    answer = site.curl("/random.bin", http, "--include", "--header", f"if-none-match: {etag}").stdout
    assert b" 304" in answer.splitlines()[0] and answer.endswith(b"\r\n\r\n")


def test_responses_without_a_body(site, http):
    """204 has no body and no made-up content-length, and the connection goes on to be used."""
    first = site.daemon.url(site.name, "/empty")
    answer = site.curl("/", http, "--include", first).stdout
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b" 204" in head.splitlines()[0] and b"content-length" not in head.lower()
    assert rest.endswith(b"<h1>hello</h1>\n")


def test_the_service_decides_the_status(site, http):
    assert site.curl("/missing-on-purpose", http, "--write-out", "%{http_code}").stdout == b"not here\n404"


def test_head_requests_keep_the_length(web, http):
    head = web.curl("/hash", http, "--head").stdout.lower()
    assert b" 200" in head.splitlines()[0] and b"content-length: 9" in head


def test_a_body_comes_back_whole(web, http, tmp_path):
    data = os.urandom(5 * MIB)
    (tmp_path / "data").write_bytes(data)
    chunked = ["--header", "transfer-encoding: chunked"] if http == "--http1.1" else []
    for options in ([], chunked):
        answer = web.curl("/echo", http, *options, "--data-binary", f"@{tmp_path}/data")
        assert hashlib.sha256(answer.stdout).digest() == hashlib.sha256(data).digest()


def test_empty_bodies(web, http):
    for method in ("POST", "PUT", "DELETE"):
        answer = web.curl("/hash", http, "--request", method, "--header", "content-length: 0")
        assert b'"length": 0' in answer.stdout, method


def test_a_service_that_answers_early(web, http, tmp_path):
    """The answer arrives although its service never reads the body."""
    (tmp_path / "data").write_bytes(bytes(20 * MIB))
    answer = web.curl(
        "/refuse", http, "--data-binary", f"@{tmp_path}/data", "--write-out", "%{http_code}",
        "--header", "expect:", check=False,
    )
    assert answer.stdout.startswith(b"no413"), answer


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
    options = ["--header", "transfer-encoding: chunked"] if http == "--http1.1" else ["--header", "content-length:"]
    answer = web.curl("/hash", http, *options, "--upload-file", tmp_path / "large", deadline=180)
    assert f'"length": {GIB}'.encode() in answer.stdout
    assert max(growth().values()) < 16 * MIB, growth()
