"""Visitors that stand still lose their exchange; pauses of a service do not count."""

import contextlib
import time

import h2.settings
import pytest

from harness import raw, stalled
from harness.http2 import Http2
from harness.http3 import Http3
from harness.process import wait_for

LIMITS = 'stall_timeout = "1s"\nhead_timeout = "1s"'
# A visitor that stands still is noticed within two looks.
SOON = 5


@pytest.fixture
def patient(own_daemon, services, transport):
    """A tunnel whose visitors may stand still for a second."""
    daemon = own_daemon(limits=LIMITS, transport=transport)
    client = daemon.client(services.web, "stalls")
    client.services = services
    yield client
    client.stop()


def ended(services):
    wait_for(lambda: services.open_streams == 0, "the service's response has ended", deadline=SOON)


def test_a_visitor_that_reads_nothing_is_cut_off(patient):
    """Over HTTP/1.1 the connection ends."""
    with stalled.ask(patient.daemon, "stalls", "/endless", buffer=16384) as connection:
        wait_for(lambda: patient.services.open_streams == 1, "the response has begun")
        ended(patient.services)
        connection.settimeout(SOON)
        with contextlib.suppress(ConnectionError):
            while connection.recv(1 << 20):
                pass


def test_a_stream_that_is_not_read_is_reset(patient):
    """Over HTTP/2 and HTTP/3 other requests of the connection go on."""
    with Http2(patient.daemon, "stalls") as visitor:
        stream = visitor.request("/endless")
        stream.reading = False
        stream.response()
        stream.wait(lambda: stream.reset is not None)
        ended(patient.services)
        assert visitor.request("/refuse", method="POST").response()[b":status"] == b"413"
    with Http3(patient.daemon, "stalls", greedy=False) as visitor:
        stream = visitor.request("/endless")
        visitor.wait(lambda: stream.reset is not None, "the stream is reset", SOON)
        ended(patient.services)
        assert not visitor.closed


def test_a_page_that_is_not_read_is_reset(patient):
    """Answers that the daemon makes itself have the same time. Other requests of the connection go on."""
    with Http2(patient.daemon, "nobody") as visitor:
        visitor.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        page = visitor.request("/")
        page.wait(lambda: page.reset is not None)
        assert page.headers[b":status"] == b"404"
        assert visitor.request("/", method="HEAD").response()[b":status"] == b"404"
    with Http3(patient.daemon, "nobody", greedy=False, window=100) as visitor:
        page = visitor.request("/")
        visitor.wait(lambda: page.reset is not None, "the stream is reset", SOON)
        assert not visitor.closed


def test_an_upload_that_stops_is_answered(patient):
    with stalled.begin_upload(patient.daemon, "stalls", "/hash", 1000) as connection:
        connection.settimeout(SOON)
        assert raw.read_head(connection).startswith(b"HTTP/1.1 408 ")
    with Http2(patient.daemon, "stalls") as visitor:
        upload = visitor.request("/hash", method="POST", end=False)
        upload.send(b"x")
        assert upload.response()[b":status"] == b"408"
    with Http3(patient.daemon, "stalls") as visitor:
        upload = visitor.request("/hash", method="POST", end=False)
        upload.send(b"x")
        visitor.wait(lambda: upload.headers, "the answer comes", SOON)
        assert dict(upload.headers)[b":status"] == b"408"


def test_an_upload_that_goes_on_slowly_is_left_alone(patient):
    """Each byte is a step, for longer than the time for a stall."""
    with stalled.begin_upload(patient.daemon, "stalls", "/hash", 9, sent=b"") as connection:
        for _ in range(9):
            time.sleep(0.3)
            connection.sendall(b"x")
        assert raw.read_head(connection).startswith(b"HTTP/1.1 200 ")


def test_a_silent_service_is_waited_for(patient):
    """Only the service can move, so nothing ends."""
    with stalled.ask(patient.daemon, "stalls", "/silent") as connection:
        wait_for(lambda: patient.services.open_streams == 1, "the request has come")
        connection.settimeout(3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert patient.services.open_streams == 1
    ended(patient.services)


def test_a_stream_of_events_may_stand_still(patient):
    with stalled.ask(patient.daemon, "stalls", "/news", buffer=16384):
        wait_for(lambda: patient.services.open_streams == 1, "the events have begun")
        time.sleep(3)
        assert patient.services.open_streams == 1
    ended(patient.services)


@pytest.mark.parametrize("begun", [b"", b"GET / HT"], ids=["nothing", "a beginning"])
def test_a_head_in_drips_is_cut_off_over_http3(patient, begun):
    """A request's stream that gets no whole head is reset."""
    with Http3(patient.daemon, "stalls") as visitor:
        stream = visitor.raw(b"\x01\x40\x50" + begun)
        visitor.wait(lambda: stream.reset is not None or stream.stopped is not None, "the stream is reset", SOON)


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nhost: a"], ids=["a byte", "a field"])
def test_a_head_in_drips_is_cut_off_over_http1(own_daemon, begun):
    """The time counts from the head's first byte, however many follow. A silent connection has longer."""
    daemon = own_daemon(limits='head_timeout = "1s"')
    with stalled.visit(daemon, "stalls", deadline=SOON) as dripping, stalled.visit(daemon, "stalls") as silent:
        dripping.sendall(begun)
        with pytest.raises((OSError, EOFError)):
            for _ in range(50):
                time.sleep(0.1)
                dripping.sendall(b"x")
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.recv(1)
