"""Runs one attack in a process of its own: `attacker NAME FIELDS`. Prints its outcome as a line of JSON."""

import importlib
import json
import sys

from .attacked import Attacked


def main(name, fields):
    module, _, function = name.partition(".")
    attack = getattr(importlib.import_module(f"harness.hostile.{module}"), function)
    print(json.dumps(attack(Attacked(**json.loads(fields))).fields()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
