"""haproxy from Debian, which passes connections on and says whose they are by the PROXY protocol."""

import socket
from pathlib import Path

from .ports import free_port
from .process import Process, wait_for

VERSIONS = ["send-proxy", "send-proxy-v2"]


class Haproxy:
    """Listens on `port`, and passes connections on to this port of 127.0.0.1. `option` is one of VERSIONS."""

    def __init__(self, folder, to, option):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = folder / "haproxy.cfg"
        config.write_text(
            f"""
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen public
    bind 127.0.0.1:{self.port}
    server cokd 127.0.0.1:{to} {option}
"""
        )
        self.process = Process("haproxy", "-db", "-f", config)
        wait_for(self._accepts, "haproxy accepts connections")

    def _accepts(self):
        assert self.process.popen.poll() is None, self.process.output()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def stop(self):
        return self.process.stop()
