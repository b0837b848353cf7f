"""Ordinary HTTP through a tunnel to nginx and aiohttp."""

import hashlib
import os

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


def test_conditions_that_fail_and_ranges_that_do_not_fit(site, http):
    head = site.curl("/random.bin", http, "--head").stdout.decode()
    modified = next(line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("last-modified"))

    def status(*fields):
        options = [part for field in fields for part in ("--header", field)]
        return site.curl("/random.bin", http, *options, "--output", "/dev/null", "--write-out", "%{http_code}").stdout

    assert status(f"if-modified-since: {modified}") == b"304"
    assert status('if-match: "another"') == b"412"
    assert status("range: bytes=2000000-") == b"416"
    assert status("range: bytes=0-9", 'if-range: "another"') == b"200"
    assert status("range: bytes=0-9", f"if-range: {modified}") == b"206"


def test_several_ranges_at_once(site, nginx, http):
    data = (nginx.site / "random.bin").read_bytes()
    answer = site.curl("/random.bin", http, "--include", "--range", "0-9,-10").stdout
    assert b"multipart/byteranges" in answer and data[:10] in answer and data[-10:] in answer


def test_responses_without_a_body(site, http):
    """204 has no body and no Content-Length, and the connection stays usable."""
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
    """The response arrives although the service never reads the body."""
    (tmp_path / "data").write_bytes(bytes(20 * MIB))
    answer = web.curl(
        "/refuse", http, "--data-binary", f"@{tmp_path}/data", "--write-out", "%{http_code}",
        "--header", "expect:", check=False,
    )
    assert answer.stdout.startswith(b"no413"), answer


def test_any_method_passes(web, http):
    for method in ("OPTIONS", "PATCH", "DELETE", "PROPFIND"):
        answer = web.curl("/echo", http, "--request", method, "--data", method)
        assert answer.stdout.decode() == method
