"""The Debian packages are whole, and do not depend on cargo's target folder."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.machine import MAINTAINER, MAKE_PACKAGES, packages

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
        maintainer = subprocess.run(["dpkg-deb", "--field", package, "Maintainer"], capture_output=True, text=True, check=True)
        assert maintainer.stdout == "{DEBFULLNAME} <{DEBEMAIL}>\n".format(**MAINTAINER)
        assert f"./lib/systemd/system/{program}.service\n" in listed, listed
        links_lead_somewhere(package, tmp_path / program)


def links_lead_somewhere(package, folder):
    """Checks that each link in the package's pages leads to one of its files, to a heading, or into the web."""
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    pages = list(folder.glob("usr/share/doc/**/*.md"))
    assert pages
    for page in pages:
        text = page.read_text()
        headings = {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.M)
        }
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, heading = link.partition("#")
            assert link.startswith("https://") or file or heading in headings, (page.name, link)
            assert link.startswith("https://") or not file or (page.parent / file).exists(), (page.name, link)


def test_somebody_maintains_them(tmp_path):
    """No address is made up: without one the script says what to set."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for given in ({}, {"DEBFULLNAME": "A", "DEBEMAIL": "a@localhost"}):
        # Outside of the clone, whose settings may name somebody.
        script = tmp_path / "tests" / "packages"
        script.parent.mkdir(exist_ok=True)
        script.write_text(MAKE_PACKAGES.read_text())
        result = subprocess.run(["bash", script, tmp_path], env={**env, **given}, capture_output=True, text=True, check=False)
        assert result.returncode == 2 and "DEBEMAIL" in result.stderr and not list(tmp_path.glob("*.deb"))
