"""Programs that run on Node.js. `tests/run` installs their packages, as node/package-lock.json pins them."""

import os
from pathlib import Path

from .process import Process

SCRIPTS = Path(__file__).parents[1] / "node"
PACKAGES = Path(os.environ.get("COK_NODE_MODULES", "target/test-node/node_modules")).resolve()


def node(script, *arguments, **more):
    """Starts a script of the folder `node`, which finds the installed packages by their folder's name."""
    return Process("node", SCRIPTS / script, PACKAGES, *arguments, **more)
