"""PHP's own server behind a tunnel. It takes one request at a time, closes each connection, and sends no 100 (Continue)."""

import hashlib
import json
import os
import threading

import pytest

from harness.http2 import Http2
from harness.ports import accepts, free_port
from harness.process import Process, wait_for

PAGE = """<?php
header("content-type: application/json");
$file = $_FILES["file"] ?? null;
echo json_encode([
    "number" => $_GET["n"] ?? null, "name" => $_POST["name"] ?? null,
    "size" => $file["size"] ?? null, "sha256" => $file ? hash_file("sha256", $file["tmp_name"]) : null,
]);
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def php(tmp_path):
    folder = tmp_path / "php"
    folder.mkdir()
    (folder / "index.php").write_text(PAGE)
    port = free_port()
    limits = ("-d", "upload_max_filesize=64M", "-d", "post_max_size=64M")
    process = Process("php", *limits, "-S", f"127.0.0.1:{port}", "-t", folder)
    wait_for(lambda: accepts(port), "PHP accepts connections")
    yield f"http://127.0.0.1:{port}"
    process.stop()


def test_a_form_with_a_file(tunnel, php, http, tmp_path):
    """curl asks for a 100 (Continue) before a body above 1 MB."""
    client = tunnel(php)
    data = os.urandom(3 << 20)
    upload = tmp_path / "upload.bin"
    upload.write_bytes(data)
    form = ("--form", f"file=@{upload}", "--form", "name=of the form")
    answer = json.loads(client.curl("/", http, *form, deadline=20).stdout)
    assert answer == {"number": None, "name": "of the form", "size": len(data), "sha256": sha256(data)}


def test_many_requests_at_once(tunnel, php, tmp_path):
    """Each of 60 requests in one HTTP/2 connection gets its own answer, and so do six visitors with uploads."""
    client = tunnel(php)
    failures = []

    def upload(number):
        data = os.urandom(200_000)
        file = tmp_path / f"upload{number}"
        file.write_bytes(data)
        form = ("--form", f"file=@{file}", "--form", f"name={number}")
        try:
            answer = json.loads(client.curl(f"/?n={number}", *form).stdout)
            assert (answer["name"], answer["sha256"]) == (str(number), sha256(data))
        except (AssertionError, ValueError) as why:
            failures.append((number, why))

    threads = [threading.Thread(target=upload, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    with Http2(client.daemon, client.name) as visitor:
        streams = [visitor.request(f"/?n={number}") for number in range(60)]
        answers = [(stream.response()[b":status"], json.loads(stream.read())["number"]) for stream in streams]
    for thread in threads:
        thread.join()
    assert answers == [(b"200", str(number)) for number in range(60)]
    assert not failures
