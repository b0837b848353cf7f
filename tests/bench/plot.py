"""Bar charts as SVG: one panel for each figure, one bar for each subject, and a line from the least to the greatest."""

from html import escape

from figures import FIGURES, text

BAR, GAP, LABELS, WIDTH, VALUES, HEADING = 16, 8, 210, 360, 90, 26
COLOURS = {True: "#2b6cb0", False: "#a0aec0"}


def _text(x, y, words, anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def _panel(figure, summaries, top):
    """Returns the lines of a figure's panel and its height."""
    kind = FIGURES[figure]
    rows = [(name, each[figure]) for name, each in summaries.items() if figure in each]
    if not rows:
        return [], 0
    longest = max(summary.most for _, summary in rows) or 1
    hint = "more is better" if kind.more_is_better else "less is better"
    lines = [_text(LABELS, top + 14, f"{kind.label} ({hint})", weight="bold")]
    y = top + HEADING
    for name, summary in rows:
        middle = y + BAR / 2
        scaled = [LABELS + WIDTH * value / longest for value in (summary.least, summary.median, summary.most)]
        lines += [
            _text(LABELS - 8, middle + 4, name, "end"),
            f'<rect x="{LABELS}" y="{y}" width="{scaled[1] - LABELS:.1f}" height="{BAR}"'
            f' fill="{COLOURS[name.startswith("cok")]}"/>',
            f'<line x1="{scaled[0]:.1f}" x2="{scaled[2]:.1f}" y1="{middle}" y2="{middle}" stroke="#1a202c"/>',
            _text(LABELS + WIDTH + 8, middle + 4, text(summary.median)),
        ]
        y += BAR + GAP
    return lines, y - top + GAP


def draw(title, figures, summaries):
    """Returns an SVG file. `summaries` has a Summary by subject and figure."""
    lines, top = [], 34
    for figure in figures:
        panel, height = _panel(figure, summaries, top)
        lines += panel
        top += height
    width = LABELS + WIDTH + VALUES
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}"'
        ' font-family="sans-serif" font-size="12" fill="#1a202c">',
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>',
        _text(LABELS, 20, title, weight="bold"),
        *lines,
        "</svg>\n",
    ])
