"""A clock that can be set while a program runs, by libfaketime from Debian. It changes only the time of day, not the
length of waits."""

import glob

# The library for programs with threads.
LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """Programs with `env` in their environment use this clock."""

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
        """Sets the clock `ahead` seconds before the real time, or behind it if negative."""
        # Replaces the file atomically, since programs read it at any time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+d}\n")
        new.replace(self._file)
