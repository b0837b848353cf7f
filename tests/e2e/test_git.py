"""A git repository behind a tunnel: git's own http-backend as a CGI program of lighttpd. CGI needs a length, so lighttpd
keeps a body until its end. A push above git's buffer goes out in chunks, after a small request that probes for
authentication."""

import os
import subprocess

import pytest

from harness.ports import accepts, free_port
from harness.process import Process, wait_for


def git(folder, *arguments, **environment):
    """Runs git without the settings of this machine."""
    clean = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    result = subprocess.run(
        [
            # Random bytes don't get smaller, so git need not try.
            "git", "-C", folder, "-c", "core.compression=0", "-c", "user.name=t", "-c", "user.email=t@tunnel.test",
            *arguments,
        ],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **clean, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def server(tmp_path):
    """Serves the folder `served`, with an empty repository in it."""
    repository = tmp_path / "served" / "work.git"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--bare")
    git(repository, "config", "http.receivepack", "true")
    port = free_port()
    backend = f"{git(tmp_path, '--exec-path').strip()}/git-http-backend"
    config = tmp_path / "lighttpd.conf"
    config.write_text(
        f"""
server.modules = ("mod_alias", "mod_setenv", "mod_cgi")
server.document-root = "{tmp_path}/served"
server.bind = "127.0.0.1"
server.port = {port}
server.stream-response-body = 1
server.upload-dirs = ("{tmp_path}")
alias.url = ("/git" => "{backend}")
setenv.set-environment = ("GIT_PROJECT_ROOT" => "{tmp_path}/served", "GIT_HTTP_EXPORT_ALL" => "")
$HTTP["url"] =~ "^/git" {{ cgi.assign = ("" => "") }}
"""
    )
    process = Process("lighttpd", "-D", "-f", config)
    wait_for(lambda: accepts(port), "lighttpd accepts connections")
    yield f"http://127.0.0.1:{port}"
    process.stop()


def objects(folder):
    """Returns the names of all objects that a branch reaches."""
    return sorted(line.split()[0] for line in git(folder, "rev-list", "--all", "--objects").splitlines())


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_large_push_comes_back_the_same(tunnel, server, tmp_path, version):
    client = tunnel(server)
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / "small.txt").write_text("small\n")
    (work / "large.bin").write_bytes(os.urandom(20 << 20))
    git(work, "add", ".")
    git(work, "commit", "--quiet", "--message=first")
    daemon = client.daemon
    options = [
        "-c", f"http.version={version}", "-c", "http.postBuffer=65536",
        "-c", f"http.curloptResolve={client.host}:{daemon.port}:{daemon.address}",
    ]
    url = daemon.url(client.name, "/git/work.git")
    git(work, *options, "push", "--quiet", url, "main", GIT_SSL_CAINFO=str(daemon.ca))
    git(tmp_path, *options, "clone", "--quiet", "--branch=main", url, "clone", GIT_SSL_CAINFO=str(daemon.ca))
    assert objects(tmp_path / "clone") == objects(work)
    assert (tmp_path / "clone" / "large.bin").read_bytes() == (work / "large.bin").read_bytes()
