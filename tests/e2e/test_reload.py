"""A reload of the configuration at run time applies all of it or nothing."""

import signal
import subprocess

from harness.cok import KEY, digest
from harness.ports import free_port
from harness.process import BIN_DIR, wait_for

ANOTHER = "cok_another-key"


def reload(daemon, *options):
    """Requests a reload at the daemon's admin socket."""
    command = [BIN_DIR / "cokd", "reload", "--config", daemon.config, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def change(daemon, *pairs):
    text = daemon.config.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    daemon.config.write_text(text)


def test_a_reload_applies_and_tunnels_stay(own_daemon, nginx, services, transport):
    dropped = f'[[keys]]\nname = "dropped"\nsecret_sha256 = "{digest("dropped")}"'
    daemon = own_daemon(transport=transport, limits='max_header_bytes = "48KiB"', keys=dropped)
    old = daemon.client(nginx.target, "old")
    visitor = old.start_curl("/random.bin", "--limit-rate", "500k", "--output", daemon.folder / "got")
    wait_for(lambda: (daemon.folder / "got").exists(), "the download has begun")
    change(daemon, (digest("dropped"), digest(ANOTHER)), ('"48KiB"', '"8KiB"'))
    done = reload(daemon)
    assert (done.returncode, done.stderr) == (0, ""), done
    daemon.process.wait_event("reloaded")
    # The dropped key opens no new tunnel. The tunnels of other keys stay, and the new key works.
    refused = daemon.client(nginx.target, "late", key="dropped", wait=False)
    assert refused.process.wait_exit() == 3
    new = daemon.client(nginx.target, "new", key=ANOTHER)
    assert new.curl("/").stdout == old.curl("/").stdout == b"<h1>hello</h1>\n"
    assert visitor.wait(60) == 0 and (daemon.folder / "got").stat().st_size == 1 << 20
    big = new.curl("/", "--http1.1", "--header", f"x-big: {'x' * 10000}", "--write-out", "%{http_code}")
    assert big.stdout.endswith(b"431")
    old.stop()
    new.stop()


def test_a_broken_configuration_changes_nothing(own_daemon, nginx):
    daemon = own_daemon()
    good = daemon.config.read_text()
    change(daemon, (digest(KEY), digest(ANOTHER)), ("[limits]", 'colour = "red"\n[limits]\nmax_held = -1'))
    done = reload(daemon)
    assert done.returncode == 2
    mistakes = done.stderr.splitlines()
    assert len(mistakes) == 2 and "colour: unknown key" in mistakes[0] and "limits.max_held" in mistakes[1], done
    # The daemon checks the configuration itself, even without the command.
    daemon.process.popen.send_signal(signal.SIGHUP)
    daemon.process.wait_event("not_reloaded")
    client = daemon.client(nginx.target)
    client.stop()
    daemon.config.write_text(good.replace(digest(KEY), digest(ANOTHER)))
    daemon.process.popen.send_signal(signal.SIGHUP)
    daemon.process.wait_event("reloaded")
    client = daemon.client(nginx.target, key=ANOTHER)
    client.stop()


def test_what_cannot_change_is_named(own_daemon, nginx):
    daemon = own_daemon()
    change(
        daemon,
        ('domain = "tunnel.test"', 'domain = "other.test"'),
        ('http = ["127.0.0.1:0"]', "http = []"),
        ("[limits]", "[limits]\nmax_connections = 7"),
        (digest(KEY), digest(ANOTHER)),
    )
    done = reload(daemon)
    assert done.returncode == 2
    told = done.stderr.splitlines()
    for line, key in zip(told, ["domain", "listen", "limits.max_connections"], strict=True):
        assert line == f"{daemon.config}: {key}: cannot change while cokd runs; restart it"
    # The new key is not valid either.
    client = daemon.client(nginx.target)
    client.stop()


def test_another_admin_address(own_daemon):
    """The file may name another admin address than the daemon's. The socket leads to the daemon all the same, which names the
    setting that cannot change."""
    daemon = own_daemon()
    change(daemon, ('admin = "127.0.0.1:0"', f'admin = "127.0.0.1:{free_port()}"'))
    done = reload(daemon)
    assert done.returncode == 2 and "listen: cannot change" in done.stderr, done


def test_another_state_directory(own_daemon, tmp_path):
    """The file may name another state directory than the daemon's. The error says how to reach the daemon."""
    daemon = own_daemon()
    change(daemon, (f'state_dir = "{daemon.state}"', f'state_dir = "{tmp_path}"'))
    done = reload(daemon)
    assert done.returncode == 1 and "name its admin address by --admin" in done.stderr, done
    done = reload(daemon, "--admin", daemon.admin)
    assert done.returncode == 1 and "token_file in [admin]" in done.stderr, done


def test_reload_without_a_daemon(own_daemon):
    daemon = own_daemon()
    daemon.stop()
    done = reload(daemon)
    assert done.returncode == 1 and f"cannot ask the daemon at {daemon.state / 'admin.sock'}" in done.stderr, done
