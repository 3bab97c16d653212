"""Dockerfiles: what Docker shows of them, and what it refuses before anything runs."""

from __future__ import annotations

import pytest

from holdfast.builder import checks
from holdfast.builder.dockerfile import parse
from holdfast.errors import InvalidParameter, Unsupported


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("FROM a\n", ["FROM a"]),
        ("\ufefffrom a\r\n  run  echo   hi \t\r\n", ["from a", "run  echo   hi"]),
        ("FROM a\nRUN one && \\\n  # comment\n\n  two\nCMD x", ["FROM a", "RUN one &&   two", "CMD x"]),
        ("# escape=`\nFROM a\nRUN one `\n two\\\n", ["FROM a", "RUN one  two\\"]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a`\n", ["FROM a"]),
        ("FROM a\nRUN <<EOF\nFOO\nEOF\nRUN b", ["FROM a", "RUN <<EOF", "RUN b"]),
        ("FROM a\nCOPY <<-one <<'two' /x/\n\tone\nb\n\tone\ntwo\nRUN c", None),
        ('FROM a\nRUN cat <<< x\nRUN ["sh", "-c", "a <<EOF"]\nRUN b', None),
        ("FROM a\nONBUILD RUN <<EOF\nFOO\nEOF", ["FROM a", "ONBUILD RUN <<EOF"]),
        ("FROM a\nRUN never ends \\", ["FROM a", "RUN never ends"]),
        ("\n\n#x\nFROM a \\\n", ["FROM a"]),
    ],
)
def test_instructions_are_shown_as_docker_does(text: str, shown: list[str] | None) -> None:
    found = [instruction.text for instruction in parse(text.encode(), "Dockerfile").instructions]
    if shown is None:
        assert found[0] == "FROM a"
        assert found[-1] in ("RUN c", "RUN b")
        assert "EOF" not in found
    else:
        assert found == shown


def test_flags_and_lines() -> None:
    copy = parse(b"FROM a\n\nCOPY --from=b --chown=1:2 x \\\n y /z\n", "Dockerfile").instructions[1]
    assert (copy.name, copy.flags, copy.line) == ("COPY", (("from", "b"), ("chown", "1:2")), 3)
    assert copy.arguments.split() == ["x", "y", "/z"]
    assert copy.raw == ("COPY --from=b --chown=1:2 x \\", " y /z")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# hi\n", "failed to parse Dockerfile: file with no instructions"),
        ("# escape=x\nFROM a", "failed to parse Dockerfile: invalid escape token 'x' does not match ` or \\"),
        ("FROM a\n\nFOO bar", "dockerfile parse error on line 3: unknown instruction: FOO (did you mean FROM?)"),
        ("XYZZY", "dockerfile parse error on line 1: unknown instruction: XYZZY"),
        ("RUN a", "no build stage in current context"),
        ("ARG a\nENV b=c", "no build stage in current context"),
        ("FROM", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM a b c", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1a",
            'dockerfile parse error on line 1: invalid name for build stage: "1a", name can\'t start with a number or'
            " contain symbols",
        ),
        ("FROM a\nENV", "dockerfile parse error on line 2: ENV requires at least one argument"),
        ("FROM a\nENV a", "failed to parse Dockerfile: ENV must have two arguments"),
        ("FROM a\nWORKDIR", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
        (
            "FROM a\nCOPY b",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided."
            " Destination could not be determined",
        ),
        ("FROM a\nCOPY --foo=x a b", "dockerfile parse error on line 2: unknown flag: --foo (did you mean from?)"),
    ],
)
def test_refusals_are_docker_s(text: str, refusal: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        checks.check(parse(text.encode(), "Dockerfile"), heredocs=True)
    assert str(refused.value) == refusal


def test_here_documents_need_a_buildah_that_knows_them() -> None:
    read = parse(b"FROM a\nRUN <<EOF\necho\nEOF\n", "Dockerfile")
    checks.check(read, heredocs=True)
    with pytest.raises(Unsupported, match="line 2: here-documents need buildah"):
        checks.check(read, heredocs=False)
