"""`cokd log-level`: what a running daemon logs changes without a restart."""

import json
import subprocess

import pytest

from harness.process import BIN_DIR, wait_for

TOKEN = "a-token-of-the-end-to-end-suite"


def log_level(daemon, *arguments):
    """Returns exit code, standard output and standard error."""
    command = [BIN_DIR / "cokd", "log-level", "--config", daemon.config, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def refuse(daemon):
    """Sends a request about which only a debug line says something. Returns the number of such lines."""
    daemon.curl("none", "/", "--request", "TRACE")
    return sum('"the request was refused"' in line for line in list(daemon.process.lines))


def test_it_is_shown_changed_and_reset(own_daemon):
    daemon = own_daemon()
    assert log_level(daemon) == (0, "info", "")
    assert refuse(daemon) == 0
    code, said, _ = log_level(daemon, "info,cokd::edge=debug")
    assert (code, said) == (0, "info,cokd::edge=debug (at the start: info)")
    wait_for(lambda: refuse(daemon), "debug lines come")
    assert daemon.process.wait_event("log_level")["filter"] == "info,cokd::edge=debug"
    assert log_level(daemon, "--reset") == (0, "info", "")
    refuse(daemon)
    before = refuse(daemon)
    assert refuse(daemon) == before
    shown = json.loads(log_level(daemon, "--json")[1])
    assert shown == {"filter": "info", "default": "info", "until": None}


def test_a_change_ends_by_itself(own_daemon):
    """A later change without a time stays."""
    daemon = own_daemon()
    code, said, _ = log_level(daemon, "debug", "--for", "1s")
    assert code == 0 and said.startswith("debug (until 2") and said.endswith(", then info)")
    wait_for(lambda: log_level(daemon) == (0, "info", ""), "the first filter is back")
    shown = json.loads(log_level(daemon, "warn", "--for", "2s", "--json")[1])
    assert shown["filter"] == "warn" and shown["until"] > "2026"
    log_level(daemon, "error")
    start = len(daemon.process.lines)
    log_level(daemon, "info,cokd=debug")
    with pytest.raises(AssertionError):
        daemon.process.wait_event("log_level", filter="default", deadline=3, start=start)


@pytest.mark.parametrize("wrong", ["wran", "cokd=loud", "info,", "", "3", "[x]=info,\x1b"])
def test_a_wrong_filter_is_refused_in_one_line(own_daemon, wrong):
    daemon = own_daemon()
    code, _, said = log_level(daemon, wrong)
    assert code == 2 and "is no log filter" in said and "\x1b" not in said
    assert log_level(daemon) == (0, "info", "")


def test_the_address_shows_it_and_wants_a_token_for_changes(own_daemon, tmp_path):
    """The same rules as for a reload."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    daemon = own_daemon(more=f'[admin]\ntoken_file = "{token}"\n')

    def ask(*options):
        command = ["curl", "-sS", "--max-time", "20", "--write-out", "\n%{http_code}", *options]
        done = subprocess.run([*command, f"http://{daemon.admin}/log-level"], capture_output=True, text=True, check=True, timeout=30)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    status, text = ask()
    assert status == 200 and json.loads(text)["filter"] == "info"
    change = ["--data", '{"filter": "debug"}']
    assert ask(*change)[0] == 401
    status, text = ask(*change, "--header", f"authorization: Bearer {TOKEN}")
    assert status == 200 and json.loads(text)["filter"] == "debug"
    shown = log_level(daemon, "--admin", daemon.admin, "warn")
    assert shown == (0, "warn (at the start: info)", "")
    for body in ('{"filter": 3}', "{}x", '{"colour": "red"}', '{"filter": "info", "for_seconds": 0}', '{"for_seconds": 5}'):
        assert ask("--data", body, "--header", f"authorization: Bearer {TOKEN}")[0] == 400, body
    assert json.loads(ask()[1])["filter"] == "warn"
    assert ask("--request", "DELETE", "--header", f"authorization: Bearer {TOKEN}")[0] == 405


def test_no_daemon_is_one_line(own_daemon):
    daemon = own_daemon()
    daemon.stop()
    code, _, said = log_level(daemon)
    assert code == 1 and said.startswith("cokd: cannot ask the daemon at ") and "\n" not in said
