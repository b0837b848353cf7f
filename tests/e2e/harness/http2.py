"""A visitor over HTTP/2 with the h2 library. Unlike curl it shows single streams, resets and extended CONNECT."""

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from h2.connection import ConnectionInputs, ConnectionState

from . import raw


class Http2:
    """One connection. The caller reads its streams one after another."""

    def __init__(self, daemon, name):
        self.authority = f"{daemon.host(name)}:{daemon.port}"
        self.socket = raw.connect(daemon, name, "h2")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        # Requests before a GOAWAY continue (RFC 9113, section 6.8), but the library forbids it.
        state = self.connection.state_machine
        going_away = (ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY)
        state._transitions = {**state._transitions, going_away: (None, ConnectionState.CLIENT_OPEN)}
        self.connection.initiate_connection()
        self.streams = {}
        # The last stream id of a GOAWAY: first the highest possible one, then the real one (RFC 9113, section 6.8).
        self.last_stream = None
        self.flush()
        # A server sends its settings first (RFC 9113, section 3.4).
        self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the connection was closed")
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.last_stream = event.last_stream_id
            stream = self.streams.get(getattr(event, "stream_id", None))
            if stream:
                stream.handle(event)
        self.flush()

    def request(self, path, method="GET", end=True, extra=(), protocol=None, authority=None):
        stream = Stream(self, self.connection.get_next_available_stream_id())
        self.streams[stream.id] = stream
        headers = [(":method", method), (":scheme", "https"), (":path", path)]
        headers.append((":authority", authority or self.authority))
        if protocol:
            headers.insert(1, (":protocol", protocol))
        self.connection.send_headers(stream.id, [*headers, *extra], end_stream=end)
        self.flush()
        return stream


class Stream:
    def __init__(self, visitor, number):
        self.visitor, self.id = visitor, number
        self.headers = self.trailers = self.reset = None
        self.interim, self.data, self.ended = [], b"", False
        # If `reading` is false, the visitor grants this stream only the initial window.
        self.reading = True

    def handle(self, event):
        match event:
            case h2.events.InformationalResponseReceived():
                self.interim.append(dict(event.headers))
            case h2.events.ResponseReceived():
                self.headers = dict(event.headers)
            case h2.events.DataReceived():
                self.data += event.data
                if self.reading:
                    self.visitor.connection.acknowledge_received_data(event.flow_controlled_length, self.id)
                else:
                    self.visitor.connection.increment_flow_control_window(event.flow_controlled_length)
            case h2.events.TrailersReceived():
                self.trailers = dict(event.headers)
            case h2.events.StreamEnded():
                self.ended = True
            case h2.events.StreamReset():
                self.reset = event.error_code

    def wait(self, condition):
        while not condition():
            self.visitor.receive()

    def response(self):
        self.wait(lambda: self.headers or self.reset is not None)
        assert self.headers, f"reset with {self.reset}"
        return self.headers

    def cancel(self):
        self.visitor.connection.reset_stream(self.id, h2.errors.ErrorCodes.CANCEL)
        self.visitor.flush()

    def send_trailers(self, fields):
        self.visitor.connection.send_headers(self.id, fields, end_stream=True)
        self.visitor.flush()

    def send(self, data, end=False):
        while (data or end) and not self.ended and self.reset is None:
            room = min(
                self.visitor.connection.local_flow_control_window(self.id),
                self.visitor.connection.max_outbound_frame_size,
            )
            if data and not room:
                self.visitor.receive()
                continue
            chunk, data = data[:room], data[room:]
            self.visitor.connection.send_data(self.id, chunk, end_stream=end and not data)
            self.visitor.flush()
            if not data:
                return

    def read(self, length=None):
        """Reads exactly `length` bytes, or all up to the end."""
        if length is None:
            self.wait(lambda: self.ended or self.reset is not None)
            assert self.reset is None, f"reset with {self.reset}"
            length = len(self.data)
        self.wait(lambda: len(self.data) >= length or self.ended or self.reset is not None)
        assert len(self.data) >= length, f"{len(self.data)} of {length} bytes, reset: {self.reset}"
        data, self.data = self.data[:length], self.data[length:]
        return data
