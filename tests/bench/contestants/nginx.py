"""nginx: as two TLS hops, and as the TLS end in front of a tunnel that has none."""

import os

from harness.ports import free_port
from harness.process import Process

from . import Contestant, certificate


def proxy(folder, name, upstream, scheme="http"):
    """Starts an nginx that ends TLS and passes requests to `upstream` over kept connections. Returns it and its port."""
    port, config = free_port(), folder / f"{name}.conf"
    temp = "\n".join(
        f"{kind}_temp_path {folder}/{name}-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(f"""
daemon off; worker_processes 1; user {os.environ.get("USER", "root")}; pid {folder}/{name}.pid; error_log stderr;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    access_log off; {temp}
    keepalive_requests 100000000; client_max_body_size 0; http2_max_concurrent_streams 256;
    upstream next {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2 backlog=4096;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;
        location / {{
            proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_request_buffering off;
            proxy_set_header Host $host; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on;
        }}
    }}
}}
""")
    return Process("nginx", "-c", config, "-p", folder, "-e", "stderr"), port


def two_hops(name, folder, origin):
    certificate.make(folder)
    inner, inner_port = proxy(folder, "inner", f"127.0.0.1:{origin.port}")
    outer, port = proxy(folder, "outer", f"127.0.0.1:{inner_port}", "https")
    return Contestant(name, [inner, outer], port)
