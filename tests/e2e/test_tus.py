"""Resumable uploads (tus) through a tunnel, with the server and the client of the tus project on Node.js."""

import os

import pytest

from harness.node import node


@pytest.fixture
def server(tmp_path):
    """A tus server. Its uploads are in the folder `uploads`."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    process = node("tus_server.mjs", uploads)
    yield f"http://127.0.0.1:{process.wait_stdout()}"
    process.stop()


def test_an_interrupted_upload_goes_on(tunnel, server, tmp_path):
    client = tunnel(server)
    data = os.urandom(5_000_000)
    file = tmp_path / "upload.bin"
    file.write_bytes(data)
    daemon = client.daemon
    endpoint = daemon.url(client.name, "/files")
    upload = node("tus_upload.mjs", file, endpoint, daemon.address, env={"NODE_EXTRA_CA_CERTS": str(daemon.ca)})
    location = upload.wait_stdout()
    assert upload.wait_exit() == 0
    # The client follows the location that the server names.
    assert location.startswith(f"{endpoint}/"), location
    assert (tmp_path / "uploads" / location.rpartition("/")[2]).read_bytes() == data
