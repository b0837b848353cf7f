"""The daemon's error pages: their titles, and the form that the visitor accepts."""

import json

TITLES = {
    400: "Bad request", 405: "Method not allowed", 421: "Misdirected request", 431: "Request head too large",
    502: "Invalid response",
}


def check_page(status, kind, body, accept=b"", title=None):
    """Fails unless it is the page of this status in this form."""
    title, text = title or TITLES[status], body.decode()
    if isinstance(title, tuple):
        title = next((known for known in title if known in text), title[0])
    if b"text/html" in accept:
        assert kind.startswith("text/html") and f"<title>{title}</title>" in text, f"no page: {kind} {text[:200]}"
    elif b"json" in accept:
        page = json.loads(text)
        assert kind == "application/json" and page["error"] == title and page["status"] == status and page["message"]
    else:
        assert kind.startswith("text/plain") and text.split("\n")[0] == title, f"no page: {kind} {text[:200]}"
        assert len(text.split("\n")[1]) > 20, "the page explains nothing"
