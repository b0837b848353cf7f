"""Small random changes of bytes, for requests and responses alike."""

ODD = [
    b"\0", b"\r", b"\n", b"\r\n", b"\t", b" ", b"\x0b", b"\x7f", b"\x80", b"\xff", b":", b",", b";", b"0",
    b"\r\n\r\n",
]


def _flip(random, data, at):
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _set(random, data, at):
    return data[:at] + random.choice(ODD) + data[at + 1 :]


def _insert(random, data, at):
    return data[:at] + random.choice(ODD) + data[at:]


def _delete(random, data, at):
    return data[:at] + data[at + random.choice([1, 1, 1, 2, 7]) :]


def _duplicate(random, data, at):
    end = at + random.choice([1, 2, 8, 40])
    return data[:end] + data[at:end] + data[end:]


def _line_end(random, data, at):
    """Replaces one end of a line."""
    at = data.find(b"\r\n", at)
    if at < 0:
        return data
    return data[:at] + random.choice([b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n ", b" \r\n", b""]) + data[at + 2 :]


def _repeat_line(random, data, at):
    lines = data.split(b"\r\n")
    number = random.randrange(len(lines))
    return b"\r\n".join(lines[: number + 1] + lines[number:])


def _move_line(random, data, at):
    lines = data.split(b"\r\n")
    line = lines.pop(random.randrange(len(lines)))
    lines.insert(random.randrange(len(lines) + 1), line)
    return b"\r\n".join(lines)


CHANGES = [_flip, _set, _insert, _delete, _duplicate, _line_end, _repeat_line, _move_line]


def change(random, data):
    """Makes one change at a random place."""
    return random.choice(CHANGES)(random, data, random.randrange(len(data))) if data else data


def replace(random, data, old, new):
    """Replaces one of the places of `old`, if there is one."""
    places = data.split(old)
    if len(places) == 1:
        return data
    cut = random.randrange(1, len(places))
    return old.join(places[:cut]) + new + old.join(places[cut:])
