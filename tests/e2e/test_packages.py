"""The Debian packages do not depend on cargo's target folder."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.machine import packages

TARGET = Path(__file__).parents[1] / "target"


def elsewhere(by, folder):
    """Returns an environment that makes cargo build into `folder`, by a variable or a configuration file."""
    env = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR")}
    if by == "variable":
        return env | {"CARGO_TARGET_DIR": str(folder)}
    home = folder.parent / "cargo"
    home.mkdir()
    (home / "config.toml").write_text(f'[build]\ntarget-dir = "{folder}"\n')
    return env | {"CARGO_HOME": str(home)}


@pytest.mark.parametrize("by", ["variable", "file"])
def test_cargo_builds_elsewhere(tmp_path, by):
    """Each package has its program, manual pages and completions. Each depends on the system's certificate authorities."""
    target = tmp_path / "target"
    target.mkdir()
    usual = Path(subprocess.run([TARGET], capture_output=True, text=True, check=True).stdout.strip())
    # All builds share one cargo-deb.
    (usual / "cargo-deb").mkdir(parents=True, exist_ok=True)
    (target / "cargo-deb").symlink_to(usual / "cargo-deb")
    made = packages(tmp_path / "debs", env=elsewhere(by, target))
    for program, settings in (("cokd", "cokd.toml"), ("cok-client", "client.toml")):
        package = made / f"{program}.deb"
        listed = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
        for file in (
            f"bin/{program}", f"share/man/man1/{program}.1.gz", f"share/man/man5/{settings}.5.gz",
            f"share/bash-completion/completions/{program}",
        ):
            assert f"./usr/{file}\n" in listed, listed
        needs = subprocess.run(["dpkg-deb", "--field", package, "Depends"], capture_output=True, text=True, check=True)
        assert "ca-certificates" in needs.stdout
