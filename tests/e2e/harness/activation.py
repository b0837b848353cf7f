"""Listening sockets that exist before the daemon, as a service manager passes them (sd_listen_fds(3))."""

import sys
from pathlib import Path

from .process import Here

# Binds HTTPS and QUIC on one free port, then executes the program that the arguments name.
HAND_OVER = """
import os, socket, sys
while True:
    https = socket.create_server(("127.0.0.1", 0))
    quic = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        quic.bind(https.getsockname())
        break
    except OSError:
        https.close()
for number, handed in enumerate([os.dup(https.fileno()), os.dup(quic.fileno())], 3):
    os.dup2(handed, number)
    os.set_inheritable(number, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "https:quic"}
os.execv(sys.argv[1], sys.argv[1:])
"""


class Activated(Here):
    """A place that passes open public sockets to the daemon."""

    def command(self, *command):
        program = [str(part) for part in command]
        return [sys.executable, "-c", HAND_OVER, *program] if Path(program[0]).name == "cokd" else program
