"""tests/circles finds planted circles of imports and reports nothing else."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "circles"

# Each case: the files of a crate, and the imports that form its circle.
PLANTED = {
    "use": (
        {
            "lib.rs": "mod a; mod b;",
            "a.rs": "use crate::b::B;\npub struct A;",
            "b.rs": "pub struct B(Other::Y);\nuse crate::a::A as Other;",
        },
        ["a.rs:1 -> src/b.rs (use crate::b::B)", "b.rs:2 -> src/a.rs (use crate::a::A)"],
    ),
    "super": (
        {
            "lib.rs": "mod a; mod b;",
            "a.rs": "mod deep;\npub use self::deep::A;",
            "a/deep.rs": "pub struct A(super::super::b::B);",
            "b.rs": "pub struct B;\nfn f(_: &super::a::A) {}",
        },
        ["a/deep.rs:1 -> src/b.rs (super::super::b::B)", "b.rs:2 -> src/a/deep.rs (super::a::A)"],
    ),
    "inline path": (
        {
            "lib.rs": "mod a; mod b;",
            "a.rs": "pub fn f<'a>(x: &'a str) {\n    g('\"', crate::b::g::<u8>(..x), b'\"');\n}",
            "b.rs": "pub fn g() -> impl Fn() {\n    || { crate::a::f(\"\"); }\n}",
        },
        ["a.rs:2 -> src/b.rs (crate::b::g)", "b.rs:2 -> src/a.rs (crate::a::f)"],
    ),
    "re-export in lib.rs": (
        {
            "lib.rs": "mod a; mod b;\npub use a::Inner as A;\npub use self::b::*;",
            "a.rs": "pub struct Inner(crate::B);",
            "b.rs": "pub struct B(crate::A);",
        },
        ["a.rs:1 -> src/b.rs (crate::B)", "b.rs:1 -> src/a.rs (crate::A)"],
    ),
    "library with types of its own": (
        {"lib.rs": "mod a;\npub use a::A;\npub struct Error;", "a.rs": "use crate::Error;\npub struct A(Error);"},
        ["lib.rs:2 -> src/a.rs (use a::A)", "a.rs:1 -> src/lib.rs (use crate::Error)"],
    ),
    "group": (
        {
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use {\n    std::fmt,\n    crate::{\n        b::{self, B as _},\n    },\n};",
            "b.rs": "pub(crate) use super::{c::{C}};\npub struct B;",
            "c.rs": "pub struct C;\nuse crate::{a as other};",
        },
        [
            "a.rs:4 -> src/b.rs (use crate::b) and 1 more",
            "b.rs:1 -> src/c.rs (use super::c::C)",
            "c.rs:2 -> src/a.rs (use crate::a)",
        ],
    ),
    "glob": (
        {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::*;\nfn f() {}", "b.rs": "use super::a::f;"},
        ["a.rs:1 -> src/b.rs (use crate::b::*)", "b.rs:1 -> src/a.rs (use super::a::f)"],
    ),
    "an item and a function's import of the same name": (
        {
            "lib.rs": "mod a; mod b;",
            "a.rs": "pub struct X;\nfn f() { use crate::b::X; X() }",
            "b.rs": "pub fn X() {}\nfn f(_: crate::a::X) {}",
        },
        ["a.rs:2 -> src/b.rs (use crate::b::X)", "b.rs:2 -> src/a.rs (crate::a::X)"],
    ),
    "path attribute": (
        {
            "lib.rs": '#[path = "odd/name.rs"]\nmod a;\nmod b;',
            "odd/name.rs": "mod child { pub use crate::b::B; }",
            "b.rs": "pub struct B(crate::a::T);",
        },
        ["odd/name.rs:1 -> src/b.rs (use crate::b::B)", "b.rs:1 -> src/odd/name.rs (crate::a::T)"],
    ),
    # The files form no circle, but their folders do.
    "two folders by different files": (
        {
            "lib.rs": "mod a; mod b;",
            "a/mod.rs": "mod one; mod two;",
            "a/one.rs": "use crate::b::one::X;",
            "a/two.rs": "pub struct Y;",
            "b/mod.rs": "pub mod one; mod two;",
            "b/one.rs": "pub struct X;",
            "b/two.rs": "use crate::a::two::Y;",
        },
        ["a/one.rs:1 -> src/b/one.rs (use crate::b::one::X)", "b/two.rs:1 -> src/a/two.rs (use crate::a::two::Y)"],
    ),
    "a folder's child and another folder, far down": (
        {
            "lib.rs": "mod top;",
            "top.rs": "mod a; mod b;\nuse a::one;",
            "top/a.rs": "pub mod one;",
            "top/a/one.rs": "use crate::top::b::B;",
            "top/b.rs": "pub struct B;\nfn f() { super::a::one::g() }",
        },
        ["top/a/one.rs:1 -> src/top/b.rs (use crate::top::b::B)", "top/b.rs:2 -> src/top/a/one.rs (super::a::one::g)"],
    ),
    "a subfolder and the module file of its parent": (
        {
            "lib.rs": "mod top;",
            "top.rs": "mod a;\npub struct T;\nfn f() { a::g() }",
            "top/a.rs": "mod one;\npub fn g() {}",
            "top/a/one.rs": "use super::super::T;",
        },
        ["top.rs:3 -> src/top/a.rs (a::g)", "top/a/one.rs:1 -> src/top.rs (use super::super::T)"],
    ),
}

# The text of a.rs, which does not import b.rs.
CLEAN = {
    "comments": "//! [`crate::b::B`]\n/* /* */ use crate::b::B; */\n// use crate::b::B;\n/// crate::b::f\nfn f() {}",
    "strings": 'const S: [&str; 3] = ["use crate::b::B; \\"", r#"" crate::b::B"#, "\\\\"]; const C: char = \'"\';',
    "tests": "#[cfg(test)]\n#[expect(unused)]\nmod tests { use crate::b::B; fn f() {} }",
    "test item": "#[cfg(all(test, unix))]\nuse crate::{b::B};\nfn f() {}",
    "test file": "#[cfg(test)]\nmod tests;",
    "other crates": '#[path = "b.rs"] mod b;\nuse ::b::{B};\nfn f() { ::b::f(); x.b::<u8>(); Vec::<u8>::b::f(); }',
    "visibility": "pub(in crate::b) struct A;",
    "declaration": "mod b { pub fn f() {} }\nfn g() { b::f(); self::b::f() }",
}

# Circles within the folder `a`.
PARENT_AND_CHILD = {
    "lib.rs": "mod a;\nuse a::A;",
    "a.rs": "mod one; mod two;\npub struct A(one::B);",
    "a/one.rs": "use super::{A, two};\npub struct B;",
    "a/two.rs": "use super::one::B;",
}


@pytest.fixture
def check(tmp_path):
    """Writes a crate's files and runs the check on it."""

    def run(files, *options, folder="src"):
        for name, text in files.items():
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        command = [SCRIPT, *options, folder]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)

    return run


@pytest.mark.parametrize("name", PLANTED)
def test_planted_circle_is_named(check, name):
    files, imports = PLANTED[name]
    result = check(files)
    assert result.returncode == 1 and result.stderr == ""
    assert sorted(line.strip() for line in result.stdout.splitlines() if ".rs:" in line) == sorted(
        f"src/{line}" for line in imports
    )


@pytest.mark.parametrize("name", CLEAN)
def test_text_that_is_no_import_is_ignored(check, name):
    result = check({
        "lib.rs": "mod a; mod b;", "a.rs": CLEAN[name], "a/tests.rs": "use crate::b::B;",
        "b.rs": "use crate::a::A;\npub struct B;",
    })
    assert (result.returncode, result.stdout) == (0, "no circles: 3 files, 1 imports, 3 parts\n")


def test_files_of_one_folder_may_import_each_other_unless_strict(check):
    assert check(PARENT_AND_CHILD).returncode == 0
    strict = check(PARENT_AND_CHILD, "--strict")
    assert strict.returncode == 1
    assert "  a -> one -> a\n    src/a.rs:2 -> src/a/one.rs (one::B)\n" in strict.stdout
    assert "  one -> two -> one\n" in strict.stdout


def test_shortest_circle_comes_first(check):
    result = check({
        "lib.rs": "mod a; mod b; mod c;", "a.rs": "use crate::b;", "b.rs": "use crate::c;",
        "c.rs": "use crate::b;\nuse crate::a;",
    })
    lines = [line for line in result.stdout.splitlines() if ".rs:" not in line]
    assert lines == ["src: 3 parts in circles, 3 files: a, b, c", "  b -> c -> b", "  a -> b -> c -> a"]


def test_graph_lists_importers_first(check):
    result = check({
        "lib.rs": "pub mod a; mod b;\npub use b::B;", "a.rs": "pub struct A;", "b.rs": "use crate::a::A;",
        "main.rs": "use some_crate::a::A;", "../Cargo.toml": '[package]\nname = "some-crate"',
    }, "--graph")
    assert result.stdout == "src\n  lib -> b\n  b -> a\n  main -> a\n  a\nno circles: 4 files, 3 imports, 4 parts\n"


def test_forbidden_import_is_named(check):
    files = {"lib.rs": "mod app; mod edge;", "app.rs": "", "edge.rs": "mod a;", "edge/a.rs": "use crate::app::App;"}
    result = check(files, folder="daemon/src")
    assert result.returncode == 1
    assert result.stdout == "forbidden: daemon/src/edge/a.rs:1 -> daemon/src/app.rs (use crate::app::App)\n"


def test_folder_without_a_crate_is_refused(check):
    result = check({"other.rs": ""})
    assert result.returncode == 2
    assert result.stderr == "circles: src has no lib.rs or main.rs: name the source folder of a crate\n"
