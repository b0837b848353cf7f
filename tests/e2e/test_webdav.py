"""A WebDAV server (WsgiDAV on cheroot) behind a tunnel. COPY and MOVE name their destination by its public URL, so the
service has to see the visitor's scheme and host."""

import os
import threading
import xml.etree.ElementTree as ElementTree

import pytest
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

LOCK = """<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype>
<owner>visitor</owner></lockinfo>"""


class Share:
    """The server, on a folder."""

    def __init__(self, folder):
        self.folder = folder
        app = WsgiDAVApp({
            "provider_mapping": {"/": str(folder)}, "simple_dc": {"user_mapping": {"*": True}}, "verbose": 1,
        })
        self.server = Server(("127.0.0.1", 0), app)
        self.server.prepare()
        self.target = f"http://127.0.0.1:{self.server.bind_addr[1]}"
        threading.Thread(target=self.server.serve, daemon=True).start()

    def stop(self):
        self.server.stop()


@pytest.fixture
def share(tmp_path):
    (tmp_path / "share").mkdir()
    server = Share(tmp_path / "share")
    yield server
    server.stop()


class Visitor:
    """Sends requests by curl over one HTTP version."""

    def __init__(self, client, http):
        self.client, self.http = client, http

    def __call__(self, method, path, *options, status):
        """Sends a request and checks the status of its response. Returns the fields, in lower case, and the body."""
        answer = self.client.curl(path, self.http, "--request", method, "--include", *options).stdout
        # The last head, since a body above 1 MB gets a 100 first over HTTP/1.1.
        while answer.startswith((b"HTTP/1.1 100", b"HTTP/2 100")):
            answer = answer.partition(b"\r\n\r\n")[2]
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().splitlines()
        assert int(lines[0].split()[1]) == status, (method, path, head, body)
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}, body

    def to(self, path):
        return ("--header", f"destination: {self.client.daemon.url(self.client.name, path)}")


def test_folders_files_and_locks(tunnel, share, http, tmp_path):
    visitor = Visitor(tunnel(share.target), http)
    data = os.urandom(2 << 20)
    file = tmp_path / "file.bin"
    file.write_bytes(data)
    options, _ = visitor("OPTIONS", "/", status=200)
    assert "2" in options["dav"]
    visitor("MKCOL", "/papers", status=201)
    visitor("MKCOL", "/papers", status=405)
    visitor("PUT", "/papers/a%20b.bin", "--upload-file", file, status=201)
    visitor("COPY", "/papers/a%20b.bin", *visitor.to("/papers/copy.bin"), status=201)
    visitor("MOVE", "/papers/a%20b.bin", *visitor.to("/papers/moved.bin"), status=201)
    visitor("GET", "/papers/a%20b.bin", status=404)
    assert visitor("GET", "/papers/moved.bin", status=200)[1] == data

    _, listing = visitor("PROPFIND", "/papers", "--header", "depth: 1", status=207)
    hrefs = [element.text for element in ElementTree.fromstring(listing).iter("{DAV:}href")]
    assert sorted(hrefs) == ["/papers/", "/papers/copy.bin", "/papers/moved.bin"]

    # A lock's token is in angle brackets, and `If` has brackets and parentheses around it.
    locked, _ = visitor("LOCK", "/papers/copy.bin", "--header", "timeout: Second-60", "--data", LOCK, status=200)
    token = locked["lock-token"]
    visitor("PUT", "/papers/copy.bin", "--data-binary", "other", status=423)
    visitor("PUT", "/papers/copy.bin", "--data-binary", "mine", "--header", f"if: ({token})", status=204)
    visitor("UNLOCK", "/papers/copy.bin", "--header", f"lock-token: {token}", status=204)
    visitor("DELETE", "/papers/copy.bin", status=204)
    visitor("DELETE", "/papers", status=204)
    assert list(share.folder.iterdir()) == []
