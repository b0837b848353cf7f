"""The table of medians, spreads and ratios, in Markdown that reads well on a terminal."""

from figures import FIGURES, text

ABSENT = "–"


def _cell(summary, precise):
    if summary is None:
        return ABSENT
    spread = f" ({text(summary.least)}–{text(summary.most)})" if precise and summary.least != summary.most else ""
    ratio = f" ×{summary.ratio:.2f}" if summary.ratio is not None else ""
    return f"{text(summary.median)}{spread}{ratio}"


def rows(workload, summaries):
    """Returns the rows of a workload: a heading, then one row for each subject."""
    heading = [workload.name, *(FIGURES[figure].label for figure in workload.figures)]
    return [
        heading,
        *(
            [name, *(_cell(each.get(figure), True) for figure in workload.figures)]
            for name, each in summaries.items()
        ),
    ]


def markdown(lines):
    """Returns rows as a Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in lines]
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {padded[0]} |", f"|{rule}|", *(f"| {row} |" for row in padded[1:])])
