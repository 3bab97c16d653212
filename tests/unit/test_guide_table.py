"""docs/guide.md: every statement of the guide has a row, and every test that a row names exists."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests"
TRANSCRIPTS = TESTS / "conformance" / "transcripts" / "guide"
TEXT = (PROJECT / "docs" / "guide.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if re.match(r"\| \d", line)]
STATEMENTS = 40


def named() -> set[str]:
    """Every transcript and test that the page names."""
    return set(re.findall(r"`(guide/[a-z0-9-]+|[a-z]+/[a-z_/]+\.py(?:::\w+)?)`", TEXT))


def exists(name: str) -> bool:
    """Whether a transcript, a file or a function of that name is there."""
    if name.startswith("guide/"):
        return (TRANSCRIPTS / f"{name.removeprefix('guide/')}.transcript").exists()
    path, _, function = name.partition("::")
    file = PROJECT / path if path.startswith("tests/") else TESTS / path
    return file.exists() and (not function or bool(re.search(rf"^def {function}\(", file.read_text(), re.MULTILINE)))


def test_every_statement_has_a_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, STATEMENTS + 1))


def test_every_row_names_a_test_or_says_what_it_waits_for() -> None:
    assert [row[0] for row in ROWS if row[3].startswith("to come") == bool(row[4])] == []


def test_what_is_named_exists() -> None:
    assert sorted(name for name in named() if not exists(name)) == []


def test_every_transcript_is_named() -> None:
    assert sorted({f"guide/{path.stem}" for path in TRANSCRIPTS.glob("*.transcript")} - named()) == []
