"""haproxy as two TLS hops, with HTTP/2 between them."""

from harness.ports import free_port
from harness.process import Process

from . import Contestant, certificate


def two_hops(name, folder, origin):
    certificate.make(folder)
    outer, inner = free_port(), free_port()
    programs = []
    for hop, port, server in [
        ("inner", inner, f"127.0.0.1:{origin.port}"),
        ("outer", outer, f"127.0.0.1:{inner} ssl verify none alpn h2"),
    ]:
        config = folder / f"{hop}.cfg"
        config.write_text(f"""
global
    nbthread 1
    maxconn 8000
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend in
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1 backlog 4096
    default_backend next
backend next
    server one {server}
""")
        programs.append(Process("haproxy", "-db", "-f", config))
    return Contestant(name, programs, outer)
