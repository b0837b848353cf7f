"""A recording HTTP/1.1 service and raw TLS connections, to receive and send requests byte for byte.

The suite's other services parse requests and do not show their bytes."""

import socket
import threading


class Recorder:
    """Answers each request with the bytes that `answer(head, connection)` returns, and records the heads."""

    def __init__(self, answer):
        self.heads = []
        self.closed = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._answer = answer
        self._connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def target(self):
        return f"http://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            while head := read_head(connection):
                self.heads.append(head)
                response = self._answer(head, connection)
                if response is None:
                    break
                connection.sendall(response)
        except (OSError, EOFError, ValueError):
            pass
        finally:
            connection.close()
            self.closed.set()

    def stop(self):
        self.listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def read_head(connection):
    """Reads up to and including the empty line. Returns no bytes if the connection ends first."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def read_line(connection):
    """Reads up to and including a line feed."""
    line = b""
    while not line.endswith(b"\n"):
        line += read_exactly(connection, 1)
    return line


def read_exactly(connection, length):
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise EOFError(f"{len(data)} of {length} bytes")
        data += chunk
    return data


def read_line(connection):
    """Returns a line without its line break."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += read_exactly(connection, 1)
    return line[:-2]


def read_body(head, connection):
    """Reads the body of a request, and drops its trailers."""
    about = dict(fields(head))
    if b"chunked" not in about.get(b"transfer-encoding", b""):
        return read_exactly(connection, int(about.get(b"content-length", 0)))
    body = b""
    while size := int(read_line(connection), 16):
        body += read_exactly(connection, size)
        assert read_line(connection) == b""
    while read_line(connection):
        pass
    return body


def connect(daemon, name, alpn="http/1.1", deadline=20):
    """Opens a TLS connection to a tunnel's name."""
    return daemon.tls(alpn).wrap_socket(daemon.connect(deadline), server_hostname=daemon.host(name))


def fields(head):
    """Returns a head's fields as pairs of bytes, with names in lower case."""
    lines = head.split(b"\r\n")[1:]
    pairs = [line.split(b":", 1) for line in lines if line]
    return [(name.lower(), value.strip()) for name, value in pairs]
