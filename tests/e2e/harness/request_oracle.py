"""Says which requests bytes contain, by the strict reading. What follows a doubtful request is none.
A request without exactly one Host is refused, but its end is not in doubt."""

import re
from dataclasses import dataclass

from . import strict_request

LINE = re.compile(rb"\s*(\S+)[ \t]+(.+?)[ \t]+HTTP/\S*[ \t]*\r?\n?", re.IGNORECASE)
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")


@dataclass
class Sent:
    method: bytes
    # In origin form.
    target: bytes
    # None if the head is doubtful, and with it the length of the body.
    body: bytes | None


def origin_form(target):
    """Strips scheme and authority, as a proxy does."""
    found = ABSOLUTE.match(target)
    if not found:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def sent(data):
    """Returns the requests, and whether the bytes end as "whole", "short" or "refused"."""
    at, requests = 0, []
    while True:
        # Empty lines before a request have no meaning (RFC 9112, section 2.2).
        while data.startswith(b"\r\n", at):
            at += 2
        if at >= len(data):
            return requests, "whole"
        try:
            strict_request.read_head(data, at, host=False)
        except strict_request.Short:
            return requests, "short"
        except strict_request.Refused:
            if found := LINE.match(data, at):
                requests.append(Sent(found[1], origin_form(found[2]), None))
            return requests, "refused"
        try:
            method, target, _, body, at = strict_request.read(data, at, host=False)
        except strict_request.Short:
            return requests, "short"
        except strict_request.Refused:
            return requests, "refused"
        requests.append(Sent(method, origin_form(target), body))
