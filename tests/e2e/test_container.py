"""The container image, without Docker: its last stage is laid out as a folder. Its entry point and its health check run there
as Docker runs them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness import needs
from harness.certified import cokd
from harness.cok import DOMAIN, KEY, digest
from harness.netns import Namespace
from harness.process import BIN_DIR, Process, wait_for

FOLDER = Path(__file__).parents[2] / "daemon" / "container"
# Static binaries of tests/static; without them, the binary under test with the libraries that it asks for.
STATIC = os.environ.get("COK_STATIC_DIR")


class Image:
    """The last stage of the Dockerfile, laid out in a folder."""

    def __init__(self, root):
        self.root = root
        lines = re.sub(r"\\\n", " ", (FOLDER / "Dockerfile").read_text()).splitlines()
        steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
        begin = max(number for number, step in enumerate(steps) if step[0] == "FROM")
        assert steps[begin][1] == "scratch"
        root.mkdir()
        # Docker makes these itself.
        for folder in ("proc", "dev", "etc"):
            (root / folder).mkdir()
        self.health = self.entry = self.command = self.user = None
        for name, rest in steps[begin + 1:]:
            if name == "COPY":
                self._copy(shlex.split(rest))
            elif name == "USER":
                self.user = [int(number) for number in rest.split(":")]
            elif name == "HEALTHCHECK":
                self.health = json.loads(rest.partition("CMD ")[2])
            elif name in ("ENTRYPOINT", "CMD"):
                setattr(self, {"ENTRYPOINT": "entry", "CMD": "command"}[name], json.loads(rest))
            else:
                assert name in ("VOLUME", "EXPOSE", "STOPSIGNAL"), name

    def _copy(self, words):
        options = dict(word[2:].split("=") for word in words if word.startswith("--"))
        source, target = (word for word in words if not word.startswith("--"))
        assert options["from"] == "build"
        target = self.root / target.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.startswith("/out/cokd"):
            self._binary(target)
        elif source == "/out/state":
            target.mkdir()
        else:
            shutil.copy(source, target)
        if "chmod" in options:
            target.chmod(int(options["chmod"], 8))
        if "chown" in options:
            os.chown(target, *map(int, options["chown"].split(":")))

    def _binary(self, target):
        source = Path(STATIC or BIN_DIR) / "cokd"
        shutil.copy(source, target)
        if STATIC:
            return
        for library in re.findall(r"(/\S+)", subprocess.run(["ldd", source], capture_output=True, text=True, check=True).stdout):
            (self.root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, self.root / library.lstrip("/"))


class Container:
    """The image's entry point as its user: in namespaces of its own, with a root that cannot be written, and a new volume."""

    def __init__(self, image, inside, name="tunnel.test"):
        self.image, self.inside = image, inside
        root, (user, group) = shlex.quote(str(image.root)), image.user
        state = f"{root}/var/lib/cokd"
        script = f"""
            mount --bind {root} {root}
            mount --make-private -t tmpfs -o uid={user},gid={group},mode=700 tmpfs {state}
            mount -o remount,ro,bind {root}
            mount -t proc proc {root}/proc
            exec setpriv --no-new-privs chroot --groups= --userspec={user}:{group} {root} {shlex.join(image.entry + image.command)}
        """
        self.process = Process(
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-e", "-c", script, inside=inside,
        )
        self.pid = wait_for(self._first, "the daemon runs")

    def _first(self):
        """Returns the number outside of the process that is number 1 inside, once it is the daemon."""
        assert self.process.popen.poll() is None, self.process.output()
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "cokd\n":
                return int(child)
        return None

    def health(self):
        """Runs the health check as Docker does: in the container, as its user."""
        user, group = self.image.user
        enter = ["nsenter", "--target", self.pid, "--mount", "--net", "--pid", "--root", "--wd", "-S", user, "-G", group]
        command = [str(part) for part in (*enter, *self.image.health)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    def stop(self):
        """Stops it as `docker stop` does. Returns its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait_exit()


@pytest.fixture
def world():
    """A network in which the container's user may open low ports, as in Docker's."""
    needs.root("only root can make a container")
    world = Namespace("container")
    world.sysctl("net/ipv4/ip_unprivileged_port_start", 0)
    yield world
    world.delete()


def test_the_image_runs(world, tmp_path):
    """It is not root, and serves the low ports. It is healthy once it is ready, and a stop ends it with 0."""
    image = Image(tmp_path / "root")
    assert image.user[0] != 0
    # The daemon's user has to reach the root folder.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    config = image.root / "etc/cokd/cokd.toml"
    config.parent.mkdir()
    config.write_text(
        f'domain = "{DOMAIN}"\n[tls]\nmode = "self-signed"\n[[keys]]\nname = "test"\nsecret_sha256 = "{digest(KEY)}"\n'
    )
    container = Container(image, world)
    try:
        wait_for(lambda: container.health().returncode == 0, "it is healthy")
        assert container.health().stdout == "ready\n"
        facts = Path(f"/proc/{container.pid}/status").read_text()
        assert facts.split("Uid:")[1].split()[:4] == [str(image.user[0])] * 4
        assert facts.split("Groups:")[1].split("\n")[0].strip() in ("", str(image.user[1]))
        assert all(int(facts.split(f"Cap{kind}:")[1].split()[0], 16) == 0 for kind in ("Prm", "Eff", "Amb"))
        inside = Path(f"/proc/{container.pid}/root")
        curl = ["curl", "-sS", "--cacert", inside / "var/lib/cokd/authority/ca.pem", "--resolve", f"{DOMAIN}:443:127.0.0.1"]
        answer = subprocess.run(
            [str(part) for part in world.command(*curl, f"https://{DOMAIN}/health/ready")], capture_output=True, check=True,
        )
        assert answer.stdout == b"ready\n"
        assert container.stop() == 0
    finally:
        container.process.kill()


def test_an_unhealthy_one_says_why(world, tmp_path):
    """The health check fails with the reason while there is no certificate."""
    image = Image(tmp_path / "root")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    (image.root / "etc/cokd").mkdir()
    acme = '[acme]\ndirectory = "https://127.0.0.1:1/directory"\n'
    (image.root / "etc/cokd/cokd.toml").write_text(f'domain = "{DOMAIN}"\n{acme}')
    container = Container(image, world)
    try:
        # It says first that it is starting, then what it waits for.
        reason = "cokd: not ready: there is no certificate yet"
        said = wait_for(lambda: (said := container.health()).stderr.startswith(reason) and said, "it says what it lacks")
        assert said.returncode == 1
    finally:
        container.process.kill()


def test_the_compose_file_names_what_is_there():
    """Its Dockerfile, and commands of cokd that exist."""
    text = (FOLDER / "compose.yaml").read_text()
    context, dockerfile = (re.search(rf"{key}: (\S+)", text)[1] for key in ("context", "dockerfile"))
    assert (FOLDER / context / dockerfile).samefile(FOLDER / "Dockerfile")
    for command in ("check", "key"):
        assert re.search(rf"cokd {command} ", text)
        assert cokd(command, "--help")[0] == 0
    # A folder: an editor that replaces a mounted file changes nothing in the container.
    assert re.search(r"- (\S+):/etc/cokd:ro\n", text)
    volume = re.search(r"- state:(\S+)", text)[1]
    assert f"VOLUME {volume}\n" in (FOLDER / "Dockerfile").read_text()
