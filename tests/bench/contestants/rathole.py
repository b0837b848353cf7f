"""nginx as the TLS end, and rathole with TLS between its server and client."""

import subprocess

from harness.ports import free_port
from harness.process import Process

from . import HOST, Contestant, certificate, nginx, tools


def with_tls(name, folder, origin):
    program = tools.path("rathole")
    certificate.make(folder)
    # rathole's native-tls reads a key in a file of PKCS 12, in the older encryption.
    subprocess.run(
        ["openssl", "pkcs12", "-export", "-legacy", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES",
         "-macalg", "sha1", "-inkey", folder / "key.pem", "-in", folder / "cert.pem", "-passout", "pass:bench",
         "-out", folder / "identity.pfx"],
        check=True, capture_output=True,
    )
    control, service = free_port(), free_port()
    (folder / "server.toml").write_text(f"""
[server]
bind_addr = "127.0.0.1:{control}"
default_token = "bench"
[server.transport]
type = "tls"
[server.transport.tls]
pkcs12 = "{folder}/identity.pfx"
pkcs12_password = "bench"
[server.services.bench]
bind_addr = "127.0.0.1:{service}"
""")
    (folder / "client.toml").write_text(f"""
[client]
remote_addr = "127.0.0.1:{control}"
default_token = "bench"
[client.transport]
type = "tls"
[client.transport.tls]
trusted_root = "{folder}/cert.pem"
hostname = "{HOST}"
[client.services.bench]
local_addr = "127.0.0.1:{origin.port}"
""")
    environment = {"RUST_LOG": "warn"}
    server = Process(program, "--server", folder / "server.toml", env=environment)
    client = Process(program, "--client", folder / "client.toml", env=environment)
    front, port = nginx.proxy(folder, "front", f"127.0.0.1:{service}")
    return Contestant(name, [server, client, front], port)
