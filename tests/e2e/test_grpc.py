"""gRPC through a tunnel: grpcio's server behind h2c, grpcio's client in front."""

import queue
import threading
from concurrent import futures

import grpc
import pytest

from harness.grpc_channel import open_channel
from harness.http3 import Http3
from harness.ports import free_port


class Echo(grpc.GenericRpcHandler):
    """A service with raw bytes as messages, which needs no protobuf compiler."""

    def __init__(self):
        self.ended = threading.Event()

    def service(self, details):
        match details.method:
            case "/echo/Unary":
                return grpc.unary_unary_rpc_method_handler(self.unary)
            case "/echo/Fail":
                return grpc.unary_unary_rpc_method_handler(self.fail)
            case "/echo/Metadata":
                return grpc.unary_unary_rpc_method_handler(self.metadata)
            case "/echo/Both":
                return grpc.stream_stream_rpc_method_handler(self.both)
            case "/echo/Many":
                return grpc.unary_stream_rpc_method_handler(self.many)
            case "/echo/Endless":
                return grpc.unary_stream_rpc_method_handler(self.endless)
            case "/echo/Sum":
                return grpc.stream_unary_rpc_method_handler(self.sum)

    def unary(self, request, context):
        context.set_trailing_metadata([("x-length", str(len(request)))])
        return request

    def fail(self, _request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 100 %")

    def metadata(self, _request, context):
        given = context.invocation_metadata()
        odd = dict(given)["x-odd-bin"]
        context.send_initial_metadata([("x-odd-bin", odd)])
        context.set_trailing_metadata([("x-odd-bin", odd[::-1])])
        return ",".join(value for name, value in given if name == "x-text").encode()

    def both(self, requests, _context):
        for request in requests:
            yield request[::-1]

    def many(self, request, _context):
        for number in range(int(request)):
            yield b"%d" % number

    def endless(self, _request, context):
        """Sends one message, then nothing until the visitor ends the call."""
        context.add_callback(self.ended.set)
        yield b"on and on"
        self.ended.wait(60)

    def sum(self, requests, _context):
        return b"%d" % sum(int(request) for request in requests)


@pytest.fixture(scope="module")
def service():
    service = Echo()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([service])
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    server.stop(None).wait()


@pytest.fixture(scope="module")
def channel(daemon, service, transport):
    client = daemon.client(f"h2c://127.0.0.1:{service.port}", "grpc", transport=transport)
    with open_channel(daemon, "grpc") as channel:
        yield channel
    client.stop()


def test_unary_with_trailers(channel):
    for size in (0, 10, 3 << 20):
        answer, call = channel.unary_unary("/echo/Unary").with_call(bytes(size), timeout=30)
        assert answer == bytes(size)
        assert dict(call.trailing_metadata())["x-length"] == str(size)


def test_errors_arrive_as_the_service_meant_them(channel):
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/echo/Fail")(b"", timeout=30)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == "not like this: 100 %"


def test_server_streaming(channel):
    answers = list(channel.unary_stream("/echo/Many")(b"1000", timeout=30))
    assert answers == [b"%d" % number for number in range(1000)]


def test_both_ways_in_lockstep(channel):
    """The visitor sends a message only after the response to the previous one."""
    requests = queue.Queue()
    answers = channel.stream_stream("/echo/Both")(iter(requests.get, None), timeout=60)
    for number in range(200):
        message = b"message %d" % number
        requests.put(message)
        assert next(answers) == message[::-1]
    requests.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_a_cancelled_call_ends(channel):
    requests = queue.Queue()
    answers = channel.stream_stream("/echo/Both")(iter(requests.get, None), timeout=60)
    requests.put(b"one")
    assert next(answers) == b"eno"
    answers.cancel()
    requests.put(None)
    assert channel.unary_unary("/echo/Unary")(b"still here", timeout=30) == b"still here"


def test_client_streaming(channel):
    answer = channel.stream_unary("/echo/Sum")(iter([b"%d" % number for number in range(1000)]), timeout=30)
    assert answer == b"499500"


def test_metadata_passes_both_ways(channel):
    """Text and binary metadata pass, before and after the response."""
    odd = bytes(range(256))
    answer, call = channel.unary_unary("/echo/Metadata").with_call(
        b"", timeout=30, metadata=[("x-text", "plain"), ("x-odd-bin", odd), ("x-text", "again")]
    )
    assert answer == b"plain,again"
    assert dict(call.initial_metadata())["x-odd-bin"] == odd
    assert dict(call.trailing_metadata())["x-odd-bin"] == odd[::-1]


def test_the_service_sees_a_call_end(channel, service):
    """A cancelled or expired call ends at the service within a second."""
    for end in ("cancel", "deadline"):
        service.ended.clear()
        answers = channel.unary_stream("/echo/Endless")(b"", timeout=0.5 if end == "deadline" else 30)
        assert next(answers) == b"on and on"
        if end == "cancel":
            answers.cancel()
        with pytest.raises(grpc.RpcError) as error:
            for _ in answers:
                pass
        expected = grpc.StatusCode.CANCELLED if end == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.value.code() is expected
        assert service.ended.wait(1)


def test_many_calls_at_once(channel):
    """The calls share one connection to the edge and one to the service."""
    call = channel.unary_unary("/echo/Unary")
    pending = [call.future(b"%d" % number * 1000, timeout=60) for number in range(100)]
    assert [future.result() for future in pending] == [b"%d" % number * 1000 for number in range(100)]


def is_unavailable(call, why):
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    return error.value.code() is grpc.StatusCode.UNAVAILABLE and error.value.details() == why


def test_a_call_that_a_stop_cuts_is_unavailable(short, service):
    """The visitor sees UNAVAILABLE, which gRPC may retry. A broken stream would be an error."""
    service.ended.clear()
    client = short.client(f"h2c://127.0.0.1:{service.port}", "grpc")
    with open_channel(short, "grpc") as channel, Http3(short, "grpc") as visitor:
        answers = channel.unary_stream("/echo/Endless")(b"", timeout=30)
        assert next(answers) == b"on and on"
        fields = [("content-type", "application/grpc"), ("te", "trailers")]
        stream = visitor.upload("/echo/Endless", bytes(5), extra=fields)
        assert stream.read(14) == b"\0\0\0\0\x09on and on"
        short.process.popen.terminate()
        assert is_unavailable(answers, "the server is restarting")
        assert stream.read() == b""
        assert stream.trailers == {b"grpc-status": b"14", b"grpc-message": b"the server is restarting"}
        assert service.ended.wait(20)
    assert short.process.wait_exit() == 0
    short.process.wait_event("stopped", finished=True)
    client.stop()


def test_a_call_that_ends_in_time_is_not_cut(own_daemon, service, transport, either_sockets):
    daemon = own_daemon(limits='drain_timeout = "20s"', transport=transport, inside=either_sockets)
    client = daemon.client(f"h2c://127.0.0.1:{service.port}", "grpc")
    requests = queue.Queue()
    with open_channel(daemon, "grpc") as channel:
        answers = channel.stream_stream("/echo/Both")(iter(requests.get, None), timeout=30)
        requests.put(b"one")
        assert next(answers) == b"eno"
        daemon.process.popen.terminate()
        daemon.process.wait_event("draining")
        requests.put(b"two")
        assert next(answers) == b"owt"
        requests.put(None)
        assert list(answers) == [] and answers.code() is grpc.StatusCode.OK
    assert daemon.process.wait_exit() == 0
    client.stop()


def test_a_call_that_loses_its_tunnel_is_unavailable(daemon, service):
    """The tunnel is a WebSocket, where the daemon notices a lost client at once."""
    service.ended.clear()
    client = daemon.client(f"h2c://127.0.0.1:{service.port}", "grpc-lost", transport="ws")
    with open_channel(daemon, "grpc-lost") as channel:
        answers = channel.unary_stream("/echo/Endless")(b"", timeout=60)
        assert next(answers) == b"on and on"
        client.process.kill()
        assert is_unavailable(answers, "the tunnel to the service was lost")


def test_an_absent_service_is_unavailable(tunnel):
    """gRPC maps the tunnel's 502 to UNAVAILABLE, which its clients may retry."""
    client = tunnel(f"h2c://127.0.0.1:{free_port()}")
    with open_channel(client.daemon, client.name) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/echo/Unary")(b"", timeout=30)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
