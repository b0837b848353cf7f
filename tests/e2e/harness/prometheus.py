"""A Prometheus of its own, which scrapes a daemon every second, and its tool."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from . import needs
from .process import Process, wait_for


class Prometheus:
    """Scrapes `daemon` as the job cokd, with the rules in `rules`."""

    def __init__(self, folder, daemon, rules):
        folder.mkdir()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "cokd", "static_configs": [{"targets": [daemon.admin]}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.process = Process(
            "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0", "--log.format=json",
        )
        listening = self.process.wait_line(
            lambda line: line.startswith("{") and json.loads(line).get("msg") == "Listening on" and json.loads(line),
            "line that says where it listens", 60,
        )
        self.address = listening["address"]
        # It listens before it has read its storage.
        wait_for(self.is_ready, "Prometheus is ready", 60)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=30) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    def ask(self, path, **parameters):
        """Returns the data of an answer of its HTTP interface."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """Returns the samples of an expression: pairs of labels and a value."""
        result = self.ask("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def value(self, expression):
        """Returns the value of an expression with one sample, or None."""
        samples = self.query(expression)
        return samples[0][1] if samples else None

    def wait_scrapes(self, count, deadline=60):
        """Waits until it has scraped so often."""
        counted = 'count_over_time(up{job="cokd"}[1h])'
        wait_for(lambda: (self.value(counted) or 0) >= count, f"{count} scrapes", deadline, 0.2)

    def stop(self):
        self.process.stop()


def promtool(*arguments, text=None):
    """Runs promtool. Returns its exit code, and all that it prints."""
    needs.command("promtool")
    result = subprocess.run(
        ["promtool", *(str(argument) for argument in arguments)], input=text, capture_output=True, text=True, check=False,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr
