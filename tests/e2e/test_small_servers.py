"""Python's own HTTP servers behind a tunnel: `python3 -m http.server`, which closes each connection, and one with a single
thread and kept connections. While one is open, it serves no other."""

import os
import sys
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from harness.http2 import Http2
from harness.process import Process

FILES = 100


@pytest.fixture
def files(tmp_path):
    """A folder with files of different lengths. Returns it and the data by name."""
    folder = tmp_path / "files"
    folder.mkdir()
    data = {f"{number}.bin": os.urandom(1000 + 997 * number) for number in range(FILES)}
    for name, content in data.items():
        (folder / name).write_bytes(content)
    return folder, data


def check(client, data):
    """Gets all files at once over one HTTP/2 connection, and checks that each is whole."""
    with Http2(client.daemon, client.name) as visitor:
        streams = {name: visitor.request(f"/{name}") for name in data}
        got = {name: (stream.response()[b":status"], stream.read()) for name, stream in streams.items()}
    wrong = {name: (status, len(content)) for name, (status, content) in got.items() if content != data[name]}
    assert not wrong
    assert {status for status, _ in got.values()} == {b"200"}


def test_files_at_once_from_pythons_http_server(tunnel, files):
    folder, data = files
    server = Process(sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder)
    port = server.wait_stdout().split("port ")[1].split()[0]
    client = tunnel(f"http://127.0.0.1:{port}")
    check(client, data)
    server.stop()


class KeepAlive(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def test_files_at_once_from_a_single_thread(tunnel, files):
    folder, data = files

    class Handler(KeepAlive):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client = tunnel(f"http://127.0.0.1:{server.server_address[1]}")
    check(client, data)
    # Its connections keep the only thread.
    client.stop()
    server.shutdown()
    server.server_close()
