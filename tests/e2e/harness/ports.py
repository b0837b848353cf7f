"""Ports for programs that can't be told to take any that is free."""

import random
import socket

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
