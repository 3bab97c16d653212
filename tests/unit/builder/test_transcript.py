"""buildah's lines become Docker's messages, however they arrive, and its complaints Docker's errors."""

from __future__ import annotations

import re
from typing import Any

import pytest

from holdfast.builder.dockerfile import parse
from holdfast.builder.failures import BuildFailed, failure
from holdfast.builder.plan import make_plan
from holdfast.builder.transcript import Base, Transcript

BASE = "a" * 64
MADE = "b" * 64


def transcript(text: str, base: Base | None = None) -> tuple[Transcript, list[dict[str, Any]]]:
    said: list[dict[str, Any]] = []
    steps = make_plan(parse(text.encode(), "Dockerfile"), "", {}, {})
    bases = dict.fromkeys(steps.images(), base or Base(f"sha256:{BASE}"))
    return Transcript(steps, bases, said.append, lambda prefix: prefix.ljust(64, prefix[-1])), said


def shown(said: list[dict[str, Any]]) -> str:
    return "".join(message.get("stream", "") or f"<{message['aux']['ID'][:10]}>" for message in said)


TWO_STAGES = "ARG v\nFROM x AS one\nRUN a\nFROM one\nRUN b\n"
OUTPUT = f"""[1/2] STEP 1/2: FROM x AS one
[1/2] STEP 2/2: RUN a
out
STEP 9/9: fake
--> Using cache {MADE}
--> {MADE[:11]}
[2/2] STEP 1/2: FROM {MADE}
[2/2] STEP 2/2: RUN b
[Warning] one or more build args were not consumed: [UN]
[2/2] COMMIT
--> cccccccccccc
{"c" * 64}
""".encode()
SHOWN = f"""Step 1/5 : ARG v
Step 2/5 : FROM x AS one
 ---> {BASE[:12]}
Step 3/5 : RUN a
out
STEP 9/9: fake
 ---> Using cache
 ---> {MADE[:12]}
<sha256:bbb>Step 4/5 : FROM one
 ---> {MADE[:12]}
Step 5/5 : RUN b
 ---> cccccccccccc
"""


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_steps_of_two_stages(size: int) -> None:
    follows, said = transcript(TWO_STAGES)
    for start in range(0, len(OUTPUT), size):
        follows.take("out", OUTPUT[start : start + size])
    follows.end(failed=False)
    assert shown(said) == SHOWN
    assert follows.image_id == "c" * 64


def test_a_line_without_an_end_is_shown_after_a_moment() -> None:
    follows, said = transcript("FROM x\nRUN a\n")
    follows.take("out", b"STEP 1/2: FROM x\nSTEP 2/2: RUN a\n50%")
    assert "50%" not in shown(said)
    follows.take("", b"")
    follows.take("out", b"..100%\n--> bbbbbbbbbbb\n")
    assert shown(said).endswith(f"50%..100%\n ---> {'b' * 12}\n")


def test_errors_are_red_and_triggers_are_no_steps() -> None:
    follows, said = transcript("FROM x\nRUN a\n", Base(f"sha256:{BASE}", triggers=2))
    follows.take("out", b"STEP 1/2: FROM x\nSTEP 2/4: RUN one\n--> ddddddddddd\nSTEP 3/4: RUN two\n--> eeeeeeeeeee\n")
    follows.take("err", b"oh")
    follows.take("err", b" no\n")
    follows.take("out", b"STEP 4/4: RUN a\n")
    assert shown(said) == (
        f"Step 1/2 : FROM x\n# Executing 2 build triggers\n ---> {'e' * 12}\n\x1b[91moh no\n\x1b[0mStep 2/2 : RUN a\n"
    )


def test_what_programs_complain_of_is_shown_and_buildah_s_last_words_are_not() -> None:
    for failed in (False, True):
        follows, said = transcript("FROM x\nRUN a\n")
        follows.take("out", b"STEP 1/2: FROM x\nSTEP 2/2: RUN a\n")
        follows.take("err", b"Error: mine\nerror: of rustc\nError: mine again\n")
        if failed:
            follows.take("err", b'Error: building at STEP "RUN a": while running runtime: exit status 1\n')
        follows.end(failed=failed)
        red = re.sub(r"\x1b\[\d*m", "", shown(said)).partition("RUN a\n")[2]
        assert red == "Error: mine\nerror: of rustc\nError: mine again\n"
        assert len(follows.errors) == failed


def test_endless_lines_are_not_kept() -> None:
    follows, said = transcript("FROM x\nRUN a\n")
    follows.take("out", b"STEP 1/2: FROM x\nSTEP 2/2: RUN a\n")
    for kind in ("out", "err"):
        for _ in range(10):
            follows.take(kind, b"-" * 10_000)
    assert shown(said).count("-") > 100_000


CREATE = 'error running container: from /usr/sbin/runc creating container for [/nope a]: time="x" level=error msg="'


@pytest.mark.parametrize(
    ("instruction", "complaint", "message", "code"),
    [
        (
            "RUN a && \\\n b",
            'Error: building at STEP "RUN a &&  b": while running runtime: exit status 3\n',
            "The command '/bin/sh -c a &&  b' returned a non-zero code: 3",
            3,
        ),
        (
            'RUN ["a", "b c"]',
            'Error: building at STEP "RUN a b c": while running runtime: exit status 7\n',
            "The command 'a b c' returned a non-zero code: 7",
            7,
        ),
        (
            'RUN ["/nope","a"]',
            CREATE
            + 'runc create failed: unable to start container process: exec: \\"/nope\\": stat /nope: no such file or'
            ' directory"\n: exit status 1\n'
            'Error: building at STEP "RUN /nope a": while running runtime: exit status 1\n',
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create"
            ' failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory',
            0,
        ),
        (
            "COPY nope /x",
            'Error: building at STEP "COPY nope /x": checking on sources under "/context": copier: stat: "/nope": no'
            " such file or directory\n",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
            0,
        ),
        (
            "COPY nope* /x",
            'Error: building at STEP "COPY nope* /x": checking on sources under "/context": Rel: can\'t make  relative'
            ' to /context; copier: stat: ["/nope*"]: no such file or directory\n',
            "COPY failed: no source files were specified",
            0,
        ),
        (
            "COPY a/../../b /x",
            'Error: building at STEP "COPY a/../../b /x": checking on sources under "/context": possible escaping\n',
            "COPY failed: forbidden path outside the build context: a/../../b ()",
            0,
        ),
        (
            "RUN id",
            'Error: building at STEP "RUN id": determining run uid: user: unknown user error looking up user "me"\n',
            "unable to find user me: no matching entries in passwd file",
            0,
        ),
        ("RUN id", "", "buildah ended with status 125 without a word", 0),
    ],
)
def test_failures(instruction: str, complaint: str, message: str, code: int) -> None:
    follows, _ = transcript(f"FROM x\n{instruction}\n")
    follows.take("out", b"STEP 1/2: FROM x\nSTEP 2/2: whatever\n")
    follows.take("err", complaint.encode())
    follows.end(failed=True)
    failed = failure(follows, runtime="runc", status=125)
    assert isinstance(failed, BuildFailed)
    assert (str(failed), failed.code) == (message, code)
