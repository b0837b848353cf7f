"""What a run leaves: raw figures in results.json, the tables in report.md, and a plot for each workload."""

import dataclasses
import json
import re
import shutil

import disturbance
import goals
import plot
import table
from figures import summarize


BEGIN, END = "<!-- The benchmark writes from here. -->", "<!-- It writes to here. -->"


@dataclasses.dataclass
class Result:
    """The measurements of a workload, by subject and round."""

    workload: object
    # Names with their groups.
    subjects: list
    measurements: dict
    # Why a subject could not be measured, by name.
    failed: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, workload, raw):
        """Returns what `raw` has returned before."""
        measurements = {
            name: [disturbance.Measurement(**each) for each in rounds] for name, rounds in raw["rounds"].items()
        }
        return cls(workload, list(raw["groups"].items()), measurements, raw["failed"])

    def summaries(self):
        return summarize(self.subjects, {
            name: [each.figures for each in self.measurements[name]] for name, _ in self.subjects
        })

    def words(self):
        """Returns the workload's table with what a reader must know about it."""
        every = [each for rounds in self.measurements.values() for each in rounds]
        dropped, disturbed = sum(each.dropped for each in every), sum(each.disturbed for each in every)
        lines = [table.markdown(table.rows(self.workload, self.summaries()))]
        if self.workload.note:
            lines += ["", self.workload.note]
        lines += [line for name, why in self.failed.items() for line in ("", f"Failed: {name}: {why}")]
        if dropped:
            lines += ["", f"Dropped because other work ran: {dropped} of {len(every) + dropped} measurements."]
        if disturbed:
            most = max(each.others for each in every)
            lines += [
                "", f"Kept although other work ran: {disturbed} of {len(every)}, at most {most:.0%} of a processor.",
            ]
        return "\n".join(lines)

    def raw(self):
        return {
            "workload": self.workload.name,
            "groups": dict(self.subjects),
            "failed": self.failed,
            "rounds": {
                name: [dataclasses.asdict(each) for each in rounds] for name, rounds in self.measurements.items()
            },
        }


def file_name(workload):
    return re.sub(r"[^a-z0-9]+", "-", workload.name.lower()).strip("-")


def heading(machine, arguments, absent):
    """Returns the lines about the run."""
    lines = ["| what | which |", "|---|---|", f"| run | {arguments} |"]
    lines += [f"| {name} | {value} |" for name, value in machine.items() if name != "versions"]
    lines += [f"| {name} | {version} |" for name, version in machine["versions"].items()]
    lines += [f"| left out: {name} | {why} |" for name, why in absent.items()]
    return "\n".join(lines) + "\n\nEach cell: median (least–greatest) ×ratio to the first row of its group.\n"


class Report:
    """Writes a run's files into a folder. Each finished workload is written at once."""

    def __init__(self, folder, machine, arguments, absent, known, add=False):
        self._folder, self._machine, self._arguments, self._absent = folder, machine, arguments, absent
        folder.mkdir(parents=True, exist_ok=True)
        self._results = self._earlier(known) if add else {}

    def _earlier(self, known):
        """Returns the results of an earlier run by name, for workloads that are still there."""
        file = self._folder / "results.json"
        raw = json.loads(file.read_text())["results"] if file.exists() else []
        by_name = {each.name: each for each in known}
        return {each["workload"]: Result.of(by_name[each["workload"]], each) for each in raw if each["workload"] in by_name}

    def add(self, result):
        self._results[result.workload.name] = result
        name = f"{file_name(result.workload)}.svg"
        drawing = plot.draw(result.workload.name, result.workload.plots, result.summaries())
        (self._folder / name).write_text(drawing)
        self.write()

    def goals(self):
        """Returns the table of the figures to reach."""
        return goals.markdown({
            name: {
                subject: {figure: summary.median for figure, summary in figures.items()}
                for subject, figures in result.summaries().items()
            }
            for name, result in self._results.items()
        })

    def write(self):
        results = self._results.values()
        raw = {
            "machine": self._machine, "run": self._arguments, "left out": self._absent,
            "results": [each.raw() for each in results],
        }
        (self._folder / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
        parts = [heading(self._machine, self._arguments, self._absent), *(each.words() for each in results), self.goals()]
        (self._folder / "report.md").write_text("\n\n".join(parts) + "\n")

    def fill(self, file):
        """Replaces the part of a Markdown file between the marks by the report. The plots go into a folder next to it."""
        before, _, rest = file.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        report = (self._folder / "report.md").read_text()
        plots = file.with_name("plots")
        plots.mkdir(exist_ok=True)
        links = []
        for result in self._results.values():
            name = f"{file_name(result.workload)}.svg"
            shutil.copy(self._folder / name, plots)
            links.append(f"| [{result.workload.name}](plots/{name}) |")
        drawn = "\n".join(["| plots |", "|---|", *links])
        file.write_text(f"{before}{BEGIN}\n\n{report}\n{drawn}\n\n{END}{after}")
