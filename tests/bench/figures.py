"""The figures that measurements have, and their medians, spreads and ratios over the rounds."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A kind of figure: its heading with the unit, and whether more of it is better."""

    label: str
    more_is_better: bool = False


FIGURES = {
    "rate": Figure("requests/s", more_is_better=True),
    "mb": Figure("MB/s", more_is_better=True),
    "p50": Figure("p50 ms"),
    "p99": Figure("p99 ms"),
    "per_100k": Figure("CPU s per 100k"),
    "per_gb": Figure("CPU s per GB"),
    "daemon_100k": Figure("daemon CPU s per 100k"),
    "client_100k": Figure("client CPU s per 100k"),
    "memory": Figure("memory MiB"),
    "each": Figure("KiB each"),
}


@dataclass
class Summary:
    """A figure over all rounds. `ratio` compares its median with the first subject's of the same group."""

    median: float
    least: float
    most: float
    ratio: float | None = None

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values))


def percentile(values, part):
    """Returns the value below which `part` of the values lie."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def summarize(subjects, rounds):
    """Takes names with groups, and a list of figures for each name. Returns a Summary by name and figure."""
    summaries, bases = {}, {}
    for name, group in subjects:
        if not rounds[name]:
            continue
        columns = {figure: [each[figure] for each in rounds[name]] for figure in rounds[name][0]}
        summaries[name] = {figure: Summary.of(values) for figure, values in columns.items()}
        base = bases.setdefault(group, summaries[name])
        for figure, summary in summaries[name].items():
            if figure in base and base[figure].median:
                summary.ratio = summary.median / base[figure].median
    return summaries


def text(value):
    """Returns a number with three digits that count."""
    if value == 0:
        return "0"
    digits = max(0, 2 - _magnitude(abs(value)))
    return f"{value:,.{digits}f}"


def _magnitude(value):
    return len(str(int(value))) - 1 if value >= 1 else -1 if value >= 0.1 else -2
