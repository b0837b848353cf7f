"""nginx from Debian, serving a folder."""

import hashlib
import os
import socket
from pathlib import Path

from .ports import free_port
from .process import HERE, Process, wait_for


class Nginx:
    """Serves `folder`/site on a free port of 127.0.0.1."""

    def __init__(self, folder, inside=HERE):
        self.inside = inside
        self.folder = Path(folder)
        self.site = self.folder / "site"
        self.site.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        self.port = inside.enter(free_port)
        config = self.folder / "nginx.conf"
        temp = "\n".join(
            f"{kind}_temp_path {self.folder}/tmp/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"""
daemon off;
worker_processes 1;
user {os.environ.get("USER", "root")};
pid {self.folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {temp}
    types {{ text/html html; image/png png; text/plain txt; application/octet-stream bin; }}
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 1000000;
    large_client_header_buffers 8 64k;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{self.port} backlog=1024;
        root {self.site};
        location = /empty {{ return 204; }}
        location = /missing-on-purpose {{ return 404 "not here\\n"; }}
        location = /headers {{ return 200 $http_x_long; }}
        location /slow/ {{ alias {self.site}/; limit_rate 64k; }}
        location /uploads/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""
        )
        self.process = Process("nginx", "-c", config, "-p", self.folder, "-e", "stderr", inside=inside)
        wait_for(self._accepts, "nginx accepts connections")

    def _accepts(self):
        assert self.process.popen.poll() is None, self.process.output()
        try:
            address = ("127.0.0.1", self.port)
            self.inside.enter(lambda: socket.create_connection(address, timeout=1)).close()
            return True
        except OSError:
            return False

    @property
    def target(self):
        return f"http://127.0.0.1:{self.port}"

    def add(self, name, data):
        """Adds a file to the site. Returns its SHA-256."""
        (self.site / name).write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def add_sparse(self, name, size):
        """Adds a sparse file of zeros."""
        with (self.site / name).open("wb") as file:
            file.truncate(size)

    def stop(self):
        return self.process.stop()
