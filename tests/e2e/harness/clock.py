"""A clock that can be set while a program runs, by libfaketime from Debian. Only the time of day is changed; waits last as
long as ever."""

import glob

# The one for programs with threads.
LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """`env` is for the programs that go by it."""

    def __init__(self, folder):
        libraries = glob.glob(LIBRARY)
        assert libraries, "Debian's package libfaketime is not installed"
        self._file = folder / "clock"
        self.set()
        self.env = {
            "LD_PRELOAD": libraries[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, ahead=0):
        """So many seconds ahead of the real time, or behind."""
        # In one go: programs read it at any time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+d}\n")
        new.replace(self._file)
