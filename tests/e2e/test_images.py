"""A registry of container images behind a tunnel: Debian's docker-registry, with skopeo as its visitor. A push asks for
the place of its upload, sends it in pieces, and follows the locations that the registry names."""

import gzip
import hashlib
import json
import os
import subprocess

import pytest

from harness.process import Process, wait_for
from harness.proxy import Forward
from harness.ports import accepts, free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def write_image(folder, layer):
    """Writes an OCI image layout with one layer and the tag `one`. Returns the digests of its manifest and of its layer."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    # skopeo would pack a plain layer, and so change its digest.
    packed = blob(gzip.compress(layer, compresslevel=0), LAYER)
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [packed]}
    entry = blob(json.dumps(manifest).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return entry["digest"], packed["digest"]


@pytest.fixture
def registry(tmp_path):
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"""
version: 0.1
storage: {{ filesystem: {{ rootdirectory: {tmp_path}/registry }} }}
http: {{ addr: "127.0.0.1:{port}", secret: "of this test" }}
"""
    )
    process = Process("docker-registry", "serve", config)
    wait_for(lambda: accepts(port), "the registry accepts connections")
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture
def forward(daemon):
    proxy = Forward(daemon)
    yield proxy
    proxy.stop()


def test_an_image_is_pushed_and_pulled(tunnel, registry, forward, tmp_path):
    client = tunnel(registry)
    manifest, layer = write_image(tmp_path / "pushed", os.urandom(12 << 20))
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "ca.crt").write_bytes(client.daemon.ca.read_bytes())
    image = f"docker://{client.host}:{client.daemon.port}/team/image:one"

    def copy(source, sink, *options):
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, sink], check=True, timeout=60,
            env={**os.environ, "HTTPS_PROXY": forward.url, "NO_PROXY": ""},
        )

    copy(f"oci:{tmp_path}/pushed:one", image, "--dest-cert-dir", trust)
    copy(image, f"oci:{tmp_path}/pulled:one", "--src-cert-dir", trust)
    [pulled] = json.loads((tmp_path / "pulled" / "index.json").read_text())["manifests"]
    assert pulled["digest"] == manifest
    arrived = tmp_path / "pulled" / "blobs" / "sha256" / layer.removeprefix("sha256:")
    assert f"sha256:{hashlib.sha256(arrived.read_bytes()).hexdigest()}" == layer
