"""A service that sends prepared bytes as its response, and then keeps, ends or resets the connection."""

import socket
import struct
from dataclasses import dataclass

from .accepting import Accepting
from .raw import read_head

KEEP, FIN, RST = "keep", "fin", "rst"


@dataclass
class Script:
    data: bytes
    ending: str


class MutantOrigin(Accepting):
    """Answers each target in `scripts` with its script."""

    def __init__(self):
        self.scripts = {}
        super().__init__()

    def serve(self, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while head := read_head(connection):
                script = self.scripts[head.split(b" ", 2)[1]]
                connection.sendall(script.data)
                if script.ending == RST:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if script.ending != KEEP:
                    return
        except OSError:
            pass
        finally:
            connection.close()
