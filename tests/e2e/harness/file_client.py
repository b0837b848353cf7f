"""A client whose tunnels are from its configuration file, and the commands that control running clients."""

import json
import subprocess

from .cok import KEY
from .process import BIN_DIR, Process


def control(command, state, *options):
    """Runs `status`, `reload` or `stop` of the client."""
    return subprocess.run(
        [BIN_DIR / "cok-client", command, *map(str, options), "--state-dir", state],
        capture_output=True, text=True, check=False, timeout=60,
    )


def status(state):
    """Returns the running clients by their PIDs."""
    done = control("status", state, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return {client["pid"]: client for client in json.loads(done.stdout)}


class FileClient:
    """A cok-client that opens the tunnels of its file. `tunnels` are sections by name, each a table or just a target."""

    def __init__(self, daemon, folder, tunnels, *options, transport="ws", key=KEY, state=None):
        self.daemon, self.folder, self.transport = daemon, folder, transport
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.state = folder / "client.toml", state or folder / "state"
        (folder / "key").write_text(key)
        self.write(tunnels)
        self.process = Process(
            BIN_DIR / "cok-client", *options, "--config", self.config, "--connect-to", daemon.https,
            "--state-dir", self.state, "--log-format", "json",
        )
        self.pid = self.process.pid

    def write(self, tunnels, more=""):
        """Writes the file. `more` goes to its top."""
        top = [f'server = "{self.daemon.url("")}"', 'api_key_file = "key"', f'ca_file = "{self.daemon.ca}"']
        lines = [*top, f'transport = "{self.transport}"', more]
        for name, tunnel in tunnels.items():
            table = tunnel if isinstance(tunnel, dict) else {"target": tunnel}
            lines += [f"[tunnels.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self.config.write_text("\n".join(lines))

    def online(self, *labels, start=0):
        """Waits for the tunnels of these sections."""
        for label in labels:
            event = self.process.wait_event("connected", start=start, tunnel=label)
            assert event["transport"] == self.transport, event

    def reload(self):
        """Reads the file again by the command. Returns what the command printed."""
        done = control("reload", self.state, self.pid)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout.removeprefix(f"client {self.pid}: ").rstrip("\n")

    def stop(self):
        return self.process.stop()
