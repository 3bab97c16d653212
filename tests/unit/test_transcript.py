"""The language of transcripts, which must not pass what it should not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.terminal import shown
from tests.support.transcript import Names, parse

ID = "0123456789ab" * 5 + "cdef"

TEXT = """\
# A comment.
$ docker volume create data
data

$ false
one

two
! bad
!
! worse
[exit 3]
@ sh
/ #
> exit
/ # exit

# Something else.
> POST /x {"a": 1}
> Content-Type: text/plain
< 400 {...}
"""


def test_parse(tmp_path: Path) -> None:
    path = tmp_path / "some.transcript"
    path.write_text(TEXT)
    first, second, screen, request = parse(path)
    assert (first.kind, first.line, first.request, first.output) == ("$", 2, "docker volume create data", ("data",))
    assert (second.output, second.errors, second.exit_code) == (("one", "", "two"), ("bad", "", "worse"), 3)
    assert (screen.kind, screen.output[:3]) == ("@", ("/ #", "> exit", "/ # exit"))
    assert (request.kind, request.request) == (">", 'POST /x {"a": 1}')
    assert (request.headers, request.output) == (("Content-Type: text/plain",), ("< 400 {...}",))


def test_parse_refuses_what_belongs_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "some.transcript"
    path.write_text("data\n")
    with pytest.raises(ValueError, match=r"some\.transcript:1: neither a command nor a request"):
        parse(path)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (["data"], "data\n", True),
        (["data"], "data", True),
        (["data"], "datax\n", False),
        (["data"], "data\nmore\n", False),
        (["data"], "", False),
        ([], "", True),
        ([], "data\n", False),
        (["a.c"], "abc\n", False),
        (["ID             NAME"], "ID    NAME  \n", True),
        (["ID             NAME"], "ID NAME\n", False),
        (["one", "...", "four"], "one\ntwo\nthree\nfour\n", True),
        (["one", "...", "four"], "one\nfour\n", True),
        (["one", "..."], "zero\none\n", False),
        (["<id64>"], ID, True),
        (["<id64>"], ID[1:], False),
        (["<ago>"], "About a minute ago", True),
        (["Up <age>"], "Up 3 seconds", True),
        (["Up <age>"], "Up soon", False),
        (["<none>"], "<none>", True),
        (["<none>"], "data", False),
        (["<time> x"], "2026-11-23T14:32:40.123456789Z x", True),
        (["<id64:a> <a>"], f"{ID} {ID}", True),
        (["<id64:a>", "<a>"], f"{ID}\n{ID[::-1]}", False),
    ],
)
def test_match(expected: list[str], actual: str, same: bool) -> None:
    assert Names().match(expected, actual) is same


def test_names_are_kept() -> None:
    names = Names()
    assert names.match(["<id64:web>"], ID)
    assert names.fill("rm <web> <none> <id64:web>") == f"rm {ID} <none> <id64:web>"
    assert names.match(["in use - [<web>]"], f"in use - [{ID}]")
    assert not names.match(["<web>"], ID[::-1])
    assert names.match(["<id64:web>"], ID)
    assert names.match_body('< 200 {"Id":"<web>",...}', f'< 200 {{"Id":"{ID}","Name":"x"}}')
    assert not names.match_body('< 200 {"Id":"<web>"}', f'< 200 {{"Id":"{ID}","Name":"x"}}')


def test_explain_marks_what_differs() -> None:
    text = Names().explain(["one", "two"], "one\nthree\n")
    assert re.search(r"^    one$", text, re.MULTILINE)
    assert re.search(r"^  \* three$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("written", "screen"),
    [
        (b"plain\r\n", "plain\n"),
        (b"/ # \x1b[6n", "/ # "),
        (b"/ # ls\r/ # \x1b[J", "/ # "),
        (b"abc\b\bX", "aXc"),
        (b"one\rtwo", "two"),
        (b"\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_a_screen(written: bytes, screen: str) -> None:
    assert shown(written) == screen
