"""The service behind every contestant: an nginx on the load's processor. A small program takes uploads for it."""

import os

import processors
from harness.ports import accepts, free_port
from harness.process import Process, wait_for

# Path and size of each file.
FILES = {"/128": 128, "/64k": 64 << 10, "/10m": 10 << 20}
HUGE = 64 << 30


class Origin:
    """Serves FILES, an endless download at /huge, and takes uploads at /sink if the program `sink` reads them."""

    def __init__(self, folder, sink=None):
        site = folder / "site"
        site.mkdir(parents=True)
        for path, size in FILES.items():
            (site / path[1:]).write_bytes(bytes(size))
        with (site / "huge").open("wb") as file:
            file.truncate(HUGE)
        self.programs = []
        with processors.on(processors.LOAD):
            uploads = self._start_sink(sink) if sink else "return 404;"
            self.port = free_port()
            config = folder / "nginx.conf"
            config.write_text(self._config(folder, site, uploads))
            self.programs.append(Process("nginx", "-c", config, "-p", folder, "-e", "stderr"))
        wait_for(lambda: accepts(self.port), "the service accepts connections")
        for program in self.programs:
            processors.prefer(program.pid)

    def _start_sink(self, sink):
        self.programs.append(Process(sink, "sink"))
        address = self.programs[-1].wait_stdout()
        return f'proxy_pass http://{address}; proxy_request_buffering off; proxy_http_version 1.1;'

    def _config(self, folder, site, uploads):
        temp = "\n".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""
daemon off; worker_processes 1; user {os.environ.get("USER", "root")}; pid {folder}/nginx.pid; error_log stderr;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    access_log off; {temp}
    default_type application/octet-stream; sendfile on; client_max_body_size 0;
    keepalive_requests 100000000; keepalive_timeout 600s;
    open_file_cache max=16; open_file_cache_valid 600s;
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        root {site};
        location = /sink {{ {uploads} }}
    }}
}}
"""

    @property
    def target(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        for program in reversed(self.programs):
            program.stop()
