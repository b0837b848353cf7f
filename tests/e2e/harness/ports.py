"""Ports for programs that can't be told to take any that is free, and what the kernel knows of connections."""

import random
import socket
from pathlib import Path

# States of a connection in proc(5), /proc/net/tcp.
FIN_WAIT1, TIME_WAIT, CLOSE, LISTEN = 0x04, 0x06, 0x07, 0x0A

# Below those that the kernel gives away by itself (net.ipv4.ip_local_port_range), so that no other socket of a test gets
# the port before the program has it.
_untried = list(range(20000, 32000))
random.shuffle(_untried)


def free_port():
    """A port of 127.0.0.1 that is free for TCP and UDP, never the same one twice: tests start programs side by side."""
    while True:
        # One step, which no other thread comes between.
        port = _untried.pop()
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def states(port):
    """The states of the TCP connections of the server on that port, by the ports of their other ends."""
    rows = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2][-4:], 16): int(row[3], 16) for row in rows if row[1].endswith(f":{port:04X}")}
