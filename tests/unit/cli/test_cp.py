"""What `cp SOURCE DESTINATION` means. Source: the table in `docker cp --help`'s page, and docker 28."""

from __future__ import annotations

import pytest

from holdfast.cli.cp_paths import End, Plan, link_target, parse_argument, plan, rebased, split
from holdfast.cli.session import Refused
from tests.unit.cli.conftest import Holdfast

FILE, DIRECTORY = End("/src/f"), End("/src/d", True, True)


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("k:/x", ("k", "/x")), ("k:x:y", ("k", "x:y")), ("/a:b", ("", "/a:b")), ("./a:b", ("", "./a:b")),
        ("../a:b", ("", "../a:b")), ("plain", ("", "plain")), ("-", ("", "-")), (":/x", ("", "/x")),
    ],
)  # fmt: skip
def test_arguments(argument: str, wanted: tuple[str, str]) -> None:
    assert parse_argument(argument) == wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/a/b", ("/a", "b")), ("/a/b/", ("/a", "b")), ("/a/.", ("/a", ".")), ("/", ("/", "/")), ("b", (".", "b"))],
)
def test_split(path: str, wanted: tuple[str, str]) -> None:
    assert split(path) == wanted


@pytest.mark.parametrize(
    ("source", "destination", "wanted"),
    [
        (FILE, End("/dst/new", exists=False), Plan("/dst", "new")),
        (FILE, End("/dst/old"), Plan("/dst", "old")),
        (FILE, End("/dst", True, True), Plan("/dst", "f")),
        (FILE, End("/dst/", True, True), Plan("/dst/", "f")),
        (DIRECTORY, End("/dst/new", exists=False), Plan("/dst", "new")),
        (DIRECTORY, End("/dst/new/", exists=False), Plan("/dst", "new")),
        (DIRECTORY, End("/dst", True, True), Plan("/dst", "d")),
        (End("/src/d/.", True, True), End("/dst", True, True), Plan("/dst", ".")),
        (End("/src/d/.", True, True), End("/dst/new", exists=False), Plan("/dst", "new")),
        (End("/src/real", True, False, "link"), End("/dst", True, True), Plan("/dst", "link")),
    ],
)
def test_plan(source: End, destination: End, wanted: Plan) -> None:
    assert plan(source, destination) == wanted


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        (FILE, End("/dst/new/", exists=False), "no such directory"),
        (DIRECTORY, End("/dst/old"), "cannot copy directory"),
    ],
)
def test_no_plan(source: End, destination: End, text: str) -> None:
    with pytest.raises(Refused, match=text):
        plan(source, destination)


@pytest.mark.parametrize(
    ("name", "old", "new", "wanted"),
    [
        ("d", "d", "e", "e"), ("d/f", "d", "e", "e/f"), ("dd/f", "d", "e", "dd/f"), ("./f", ".", "e", "e/f"),
        ("/bin/x", "/", "root", "root/bin/x"), ("", "/", "root", "root"), ("d/d", "d", "e", "e/d"),
    ],
)  # fmt: skip
def test_rebased(name: str, old: str, new: str, wanted: str) -> None:
    assert rebased(name, old, new) == wanted


def test_link_target() -> None:
    assert link_target("/a/link", "/b/real") == ("/b/real", "link")
    assert link_target("/a/link/", "/b/real") == ("/b/real/", "link")
    assert link_target("/a/link/.", "/b/real") == ("/b/real/.", "")
    assert link_target("/a/same", "/b/same") == ("/b/same", "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("a", "b"), "must specify at least one container source"),
        (("k:/a", "j:/b"), "copying between containers is not supported"),
        (("", "k:/b"), "source can not be empty"),
        (("k:/a", ""), "destination can not be empty"),
        (("/does/not/exist", "k:/b"), "lstat /does/not/exist: no such file or directory"),
        (("k:/a", "/does/not/exist"), 'invalid output path: directory "/does/not" does not exist'),
        (("-", "k:/b"), 'destination "k:/b" must be a directory'),
        (("k:/a", "/dev/null"), "got a device"),
    ],
)
def test_refused(holdfast: Holdfast, words: tuple[str, ...], text: str) -> None:
    outcome = holdfast("cp", *words)
    assert outcome.code == 1
    assert text in outcome.err
