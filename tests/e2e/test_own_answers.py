"""What browsers may do with the answers that the daemon gives by itself."""

import subprocess

from harness import raw

FIELDS = {b"x-content-type-options": b"nosniff", b"referrer-policy": b"no-referrer"}


def check(head):
    fields = dict(raw.fields(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"))
    fields = {name.lower(): value for name, value in fields.items()}
    assert fields.items() >= FIELDS.items(), head
    policy = dict(part.strip().split(b" ", 1) for part in fields[b"content-security-policy"].split(b";"))
    for name in (b"default-src", b"frame-ancestors", b"base-uri", b"form-action"):
        assert policy[name] == b"'none'", head


def plain_curl(*arguments):
    return subprocess.run(["curl", "-sS", "--include", "--max-time", "20", *arguments], capture_output=True, check=True).stdout


def test_every_own_answer_is_marked(daemon):
    for accept in ("text/html", "application/json", "*/*"):
        check(daemon.curl("unknown-name", "/", "--http1.1", "--include", "--header", f"accept: {accept}").stdout)
    check(daemon.curl("", "/health", "--http1.1", "--include").stdout)
    check(daemon.curl("", "/", "--http1.1", "--include").stdout)
    check(plain_curl("--header", f"host: {daemon.host('x')}", f"http://{daemon.http}/"))
    check(plain_curl(f"http://{daemon.https}/"))
    check(plain_curl(f"http://{daemon.admin}/health"))


def test_a_service_sets_its_own_fields(site):
    head = site.curl("/", "--http1.1", "--include").stdout.lower()
    assert b"200 ok" in head and b"content-security-policy" not in head and b"nosniff" not in head
