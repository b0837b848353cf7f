"""Free ports for programs that can't bind port 0, and the kernel's connection states."""

import os
import random
import socket
from pathlib import Path

# States of a connection in proc(5), /proc/net/tcp.
FIN_WAIT1, TIME_WAIT, CLOSE, LISTEN = 0x04, 0x06, 0x07, 0x0A

# Below the kernel's ephemeral ports (net.ipv4.ip_local_port_range), so that no other socket of a test takes the port
# first. Each parallel worker has its own share (gw0, gw1 and so on, as pytest-xdist names them).
_worker, _workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
_untried = list(range(20000 + int(_worker.removeprefix("gw")), 32000, int(_workers)))
random.shuffle(_untried)


def free_port():
    """Returns a port of 127.0.0.1 that is free for TCP and UDP, and never the same one twice."""
    while True:
        # One atomic step, safe between threads.
        port = _untried.pop()
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def states(port):
    """Returns the states of a server's TCP connections by the ports of their peers."""
    rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2][-4:], 16): int(row[3], 16) for row in rows if row[1].endswith(f":{port:04X}")}


def accepts(port):
    """Returns whether a server accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False
