"""A name whose client has vanished: another client gets it without help."""

import signal

from harness.cok import TRANSPORTS

# The daemon gives the old client 2.5 s to answer. The rest is a noisy machine's.
DEADLINE = 10


def test_a_client_that_vanished_does_not_keep_its_name(daemon, nginx):
    """This happens when a container without kept state is killed and restarted, or its machine is cut off."""
    # The kernel closes a killed program's connections, but only with TCP.
    gone = {"ws": signal.SIGSTOP, "quic": signal.SIGKILL}
    first = {way: daemon.client(nginx.target, f"gone-{way}", transport=way) for way in TRANSPORTS}
    for way, client in first.items():
        client.process.popen.send_signal(gone[way])
    second = [
        daemon.client(nginx.target, f"gone-{way}", transport=way, wait=False, state=daemon.folder / f"{way}-again")
        for way in TRANSPORTS
    ]
    for client in second:
        client.process.wait_event("connected", deadline=DEADLINE)
        assert client.curl("/").stdout == b"<h1>hello</h1>\n"
        said = client.process.output()
        assert '"name_taken"' not in said and '"disconnected"' not in said
        assert client.stop() == 0
    for client in first.values():
        client.process.kill()


def test_the_time_is_an_option(site, daemon, tunnel, nginx):
    """The refusal is final at once if the time is zero, and after that time otherwise."""
    for time, tries in [("0", False), ("1500ms", True)]:
        client = tunnel(nginx.target, "site", wait=False, state=daemon.folder / "other", options=("--name-timeout", time))
        assert client.process.wait_exit() == 3
        assert 'the name "site" is in use' in client.process.wait_event("refused")["reason"]
        assert ('"name_taken"' in client.process.output()) == tries
