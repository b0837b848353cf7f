"""The programs to compare. Each makes the service public over TLS 1.3 under one name, on a port of its own."""

import subprocess
from dataclasses import dataclass, field

import processors
from harness.process import wait_for

HOST = "bench.tunnel.test"


class Absent(Exception):
    """A contestant that is not to be had here, with the reason."""


@dataclass
class Contestant:
    """A running contestant. `programs` are its processes, `port` is where visitors connect."""

    name: str
    programs: list
    port: int
    # The daemon and the clients apart, where the difference is of interest.
    parts: dict = field(default_factory=dict)

    @property
    def pids(self):
        return [program.pid for program in self.programs]

    def processor_seconds(self):
        return processors.processor_seconds(self.pids)

    def memory(self):
        return processors.memory(self.pids)

    def url(self, path):
        return f"https://{HOST}:{self.port}{path}"

    def curl(self, path, *options):
        """Returns a curl command of a visitor."""
        return ["curl", "-sk", "--http1.1", "--resolve", f"{HOST}:{self.port}:127.0.0.1", *options, self.url(path)]

    def _answers(self):
        for program in self.programs:
            assert program.popen.poll() is None, f"{self.name} ended: {program.output()}"
        command = self.curl("/128", "--max-time", "2", "-o", "/dev/null", "-w", "%{http_code}")
        return subprocess.run(command, capture_output=True, check=False).stdout == b"200"

    def wait(self):
        """Waits until a request through all of it is answered."""
        wait_for(self._answers, f"{self.name} answers")

    def stop(self):
        for program in reversed(self.programs):
            program.stop()


def start(entry, folder, origin):
    """Starts a contestant on its processor. Returns it once it answers."""
    name, begin = entry
    folder.mkdir(parents=True)
    with processors.on(processors.TUNNEL):
        contestant = begin(name, folder, origin)
    for pid in contestant.pids:
        processors.prefer(pid)
    try:
        contestant.wait()
    except BaseException:
        contestant.stop()
        raise
    return contestant
