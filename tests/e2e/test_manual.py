"""The help and the manual pages of both programs."""

import gzip
import re
import subprocess

import pytest

from harness.process import BIN_DIR

PROGRAMS = ["cokd", "cok-client"]
SETTINGS = {"cokd": "cokd.toml", "cok-client": "client.toml"}


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_says_what_for_and_ends_with_examples(program):
    text = run(BIN_DIR / program, "--help")
    assert text.split("\n")[0].startswith("Puts ") and text.index("Usage:") < 600
    before, _, examples = text.partition("\nExamples:\n")
    assert "\nExit codes: 0 " in before and "\nEnvironment: " in before
    lines = [line for line in examples.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    assert len(lines) >= 5 and not re.search(r"^\S", examples, re.MULTILINE)
    assert run(BIN_DIR / program, "-h").endswith(examples)


@pytest.mark.parametrize("program", PROGRAMS)
def test_examples_have_commands_that_exist(program):
    """Each subcommand and flag of an example is one of the program."""
    examples = run(BIN_DIR / program, "--help").partition("\nExamples:\n")[2]
    for line in re.findall(rf"^  {program} (.*)$", examples, re.MULTILINE):
        words = line.split()
        commands = re.findall(r"^  ([a-z]+) ", run(BIN_DIR / program, "--help"), re.MULTILINE)
        of = [words[0]] if words[0] in commands else []
        if of and words[0] in ("key", "config", "cert"):
            of.append(words[1])
        known = run(BIN_DIR / program, *of, "--help")
        for flag in (word for word in words if word.startswith("--")):
            assert flag in known, line


@pytest.mark.parametrize("program", PROGRAMS)
def test_manual_pages(tmp_path, program):
    run(BIN_DIR / program, "man", tmp_path)
    pages = sorted(tmp_path.iterdir())
    assert {f"{program}.1", f"{SETTINGS[program]}.5"} <= {page.name for page in pages}
    for page in pages:
        # groff names every mistake of a page in its own words.
        command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", page]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert result.stderr == "", page
    main = (tmp_path / f"{program}.1").read_text()
    for section in ("EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"):
        assert re.search(rf'^\.SH "?{section}"?$', main, re.MULTILINE), section
    assert run(BIN_DIR / program, "man") == main


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_page_of_the_file(tmp_path, program):
    """man shows it, compressed, as the package installs it."""
    run(BIN_DIR / program, "man", tmp_path)
    page = tmp_path / f"{SETTINGS[program]}.5"
    packed = tmp_path / f"{page.name}.gz"
    packed.write_bytes(gzip.compress(page.read_bytes()))
    shown = re.sub(r".\x08", "", run("man", "--local-file", packed))
    key = "domain =" if program == "cokd" else "api_key_file ="
    assert SETTINGS[program] in shown and key in shown
