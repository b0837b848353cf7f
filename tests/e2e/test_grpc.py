"""gRPC through a tunnel: grpcio's server behind h2c, grpcio's client in front."""

import queue
from concurrent import futures

import grpc
import pytest


class Echo(grpc.GenericRpcHandler):
    """Raw bytes, so that no compiler of definitions is needed."""

    def service(self, details):
        match details.method:
            case "/echo/Unary":
                return grpc.unary_unary_rpc_method_handler(self.unary)
            case "/echo/Fail":
                return grpc.unary_unary_rpc_method_handler(self.fail)
            case "/echo/Both":
                return grpc.stream_stream_rpc_method_handler(self.both)
            case "/echo/Many":
                return grpc.unary_stream_rpc_method_handler(self.many)

    def unary(self, request, context):
        context.set_trailing_metadata([("x-length", str(len(request)))])
        return request

    def fail(self, _request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: 100 %")

    def both(self, requests, _context):
        for request in requests:
            yield request[::-1]

    def many(self, request, _context):
        for number in range(int(request)):
            yield b"%d" % number


@pytest.fixture(scope="module")
def channel(daemon):
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = daemon.client(f"h2c://127.0.0.1:{port}", "grpc")
    host = daemon.host("grpc")
    options = [
        ("grpc.ssl_target_name_override", host),
        ("grpc.default_authority", host),
        ("grpc.max_receive_message_length", -1),
    ]
    credentials = grpc.ssl_channel_credentials(daemon.ca.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{daemon.port}", credentials, options) as channel:
        yield channel
    client.stop()
    server.stop(None).wait()


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
    """The next message is sent only once the answer to the one before is there."""
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
