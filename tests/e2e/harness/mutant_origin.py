"""A service that sends prepared bytes as its response, and then keeps, ends or resets the connection."""

import socket
import struct
import threading
from dataclasses import dataclass

from .raw import read_head

KEEP, FIN, RST = "keep", "fin", "rst"


@dataclass
class Script:
    data: bytes
    ending: str


class MutantOrigin:
    """Answers each target in `scripts` with its script."""

    def __init__(self):
        self.scripts = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.target = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
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

    def stop(self):
        self._listener.close()
