"""nginx as the TLS end, and bore, which does not encrypt its tunnel."""

from harness.ports import accepts, free_port
from harness.process import Process, wait_for

from . import Absent, Contestant, certificate, nginx, tools

# bore knows no other one.
CONTROL = 7835


def without_tls(name, folder, origin):
    program = tools.path("bore")
    if accepts(CONTROL):
        raise Absent(f"its port {CONTROL} is taken")
    certificate.make(folder)
    service = free_port()
    server = Process(program, "server", "--bind-addr", "127.0.0.1", "--min-port", service, "--max-port", service)
    wait_for(lambda: accepts(CONTROL), "bore's server accepts connections")
    client = Process(program, "local", origin.port, "--to", "127.0.0.1", "--port", service)
    front, port = nginx.proxy(folder, "front", f"127.0.0.1:{service}")
    return Contestant(name, [server, client, front], port)
