"""Transcripts: what a user types and what Docker answers, in a file that reads like a terminal session.

    # A comment.
    $ docker volume create data             a command, run by bash in the engine's network namespace; a backslash at
                                            the end of a line continues it, as a shell does
    data                                    its standard output, to the letter
    ! Error response from daemon: ...       its standard error, a line each
    [exit 1]                                its exit code; 0 where nothing is said

    @ docker run -it --rm busybox sh        the same on a terminal
    / #                                     what is on the screen before
    > echo $((6*7))                         these keys are typed; Enter is added, unless the line ends with a backslash
    / # echo $((6*7))                       the line that the cursor was in, and what follows
    42

    > POST /volumes/create {"Name": 3}      a request to the API, with the body as it stands here
    > Content-Type: application/json        a header; this one is sent anyhow where there is a body
    < 400 {"message":"..."}                 status and body, to the letter

What differs from run to run is written as a placeholder: `<id64>`, `<time>`, ... (see `PLACEHOLDERS`). With a name,
`<id64:web>`, the text is kept: later `<web>` stands for it in output, commands and requests alike. A line that is just
`...` stands for any number of lines, and inside an API answer for any text. Runs of two or more blanks inside a line
are as good as one another, since columns are as wide as their contents; blanks at the ends of lines do not count.
Commands run in `$DIR`, an empty folder of their own, and see `$START`, when the transcript began.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.engine import Engine
from tests.support.terminal import Terminal

_AGE = (
    r"(?:Less than a second|1 second|\d+ seconds|About a minute|\d+ minutes|About an hour|\d+ hours|\d+ days"
    r"|\d+ weeks|\d+ months|\d+ years)"
)
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
PLACEHOLDERS: Mapping[str, str] = {
    "id12": r"[0-9a-f]{12}",
    "id64": r"[0-9a-f]{64}",
    "digest": r"sha256:[0-9a-f]{64}",
    "time": _TIME,
    "age": _AGE,
    "ago": _AGE + " ago",
    "size": r"\d+(?:\.\d+)?[kMGT]?B",
    "number": r"\d+",
    "ip": r"\d{1,3}(?:\.\d{1,3}){3}",
    "mac": r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}",
    "path": r"/[^\s\":,]*",
    "name": r"[a-z]+_[a-z]+\d?",
    "word": r"\S+",
    "text": r".*",
}
_MARK = re.compile(r"<([a-z0-9]+)(?::([a-z]\w*))?>")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One thing done and what must come of it."""

    kind: str
    """`$`, `@` or `>`."""
    line: int
    request: str
    output: tuple[str, ...]
    """Expected lines; of a terminal also the keys, marked by a leading `> `."""
    errors: tuple[str, ...] = ()
    exit_code: int = 0
    headers: tuple[str, ...] = ()


@dataclass(slots=True)
class Names:
    """What named placeholders have stood for so far."""

    known: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """`text` with every `<name>` that is known replaced by what it stands for."""
        return _MARK.sub(lambda mark: self.known.get(mark[1], mark[0]) if mark[2] is None else mark[0], text)

    def pattern(self, text: str, fresh: set[str] | None = None) -> str:
        """The regular expression of one line; `fresh` gathers the names that it gives."""
        fresh = set() if fresh is None else fresh
        out, end = "", 0
        for mark in _MARK.finditer(text):
            kind, name = mark.groups()
            if kind not in PLACEHOLDERS and kind not in self.known and kind not in fresh:
                continue
            out += _literal(text[end : mark.start()])
            end = mark.end()
            word = name or kind
            if word in self.known:
                out += re.escape(self.known[word])
            elif word in fresh:
                out += f"(?P={word})"
            elif name is None:
                out += PLACEHOLDERS[kind]
            else:
                out += f"(?P<{name}>{PLACEHOLDERS[kind]})"
                fresh.add(name)
        return out + _literal(text[end:])

    def match(self, expected: Sequence[str], actual: str) -> bool:
        """Whether `actual` is what `expected` says; keeps what named placeholders stood for."""
        fresh = set[str]()
        pattern = "".join(r"(?:.*\n)*?" if line == "..." else self.pattern(line, fresh) + "\n" for line in expected)
        found = re.fullmatch(pattern, "".join(line + "\n" for line in tidy(actual)))
        if found is not None:
            self.known.update({name: text for name, text in found.groupdict().items() if text is not None})
        return found is not None

    def match_body(self, expected: str, actual: str) -> bool:
        """The same for the body of an answer, where `...` is any text."""
        fresh = set[str]()
        pattern = ".*?".join(self.pattern(part, fresh) for part in expected.split("..."))
        found = re.fullmatch(pattern, actual, re.DOTALL)
        if found is not None:
            self.known.update({name: text for name, text in found.groupdict().items() if text is not None})
        return found is not None

    def explain(self, expected: Sequence[str], actual: str) -> str:
        """Expected and actual lines one below the other, marked where they part."""
        lines = tidy(actual)
        marked = []
        for number, line in enumerate(lines):
            same = number < len(expected) and re.fullmatch(self.pattern(expected[number]), line)
            marked.append(("    " if same else "  * ") + line)
        return "\n".join(["  expected:", *("    " + line for line in expected), "  but it was:", *marked])


def tidy(text: str) -> list[str]:
    """Lines without blanks at their ends, and without empty lines at the end."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def parse(path: Path) -> list[Exchange]:
    """Read a transcript. Raises ValueError naming file and line for one that makes no sense."""
    return list(_exchanges(path, path.read_text().splitlines()))


def _exchanges(path: Path, lines: Sequence[str]) -> Iterator[Exchange]:
    number = 0
    while number < len(lines):
        line = lines[number]
        if not line.strip() or line.startswith("#"):
            number += 1
            continue
        kind, _, request = line.partition(" ")
        if kind not in ("$", "@", ">"):
            raise ValueError(f"{path}:{number + 1}: neither a command nor a request: {line}")
        where = number = number + 1
        while kind in "$@" and request.endswith("\\") and number < len(lines):
            request += "\n" + lines[number]
            number += 1
        start = number
        while number < len(lines) and not _starts_exchange(lines[number], kind):
            number += 1
        yield _exchange(kind, where, request, lines[start:number])


def _starts_exchange(line: str, kind: str) -> bool:
    request = kind != "@" and line.startswith("> ") and (kind != ">" or _is_request(line))
    return line.startswith(("$ ", "@ ", "# ")) or request


def _is_request(line: str) -> bool:
    return line.split(" ")[1] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


def _exchange(kind: str, line: int, request: str, following: Sequence[str]) -> Exchange:
    exit_code, output, errors, headers = 0, list[str](), list[str](), list[str]()
    for text in following:
        if ended := re.fullmatch(r"\[exit (\d+)\]", text):
            exit_code = int(ended[1])
        elif text == "!" or text.startswith("! "):
            errors.append(text[2:].rstrip())
        elif kind == ">" and text.startswith("> "):
            headers.append(text[2:])
        else:
            output.append(text.rstrip())
    while output and not output[-1]:
        output.pop()
    return Exchange(kind, line, request, tuple(output), tuple(errors), exit_code, tuple(headers))


def _literal(text: str) -> str:
    return "".join(" {2,}" if part.startswith("  ") else re.escape(part) for part in re.split("( {2,})", text))


class Player:
    """Plays transcripts against an engine; collects what was not as expected."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.names = engine, Names()
        self.environment = {**engine.client_environment(), "DIR": str(folder), "START": f"{time.time():.9f}"}
        self.failures: list[str] = []

    def play(self, path: Path) -> list[str]:
        """Play one file to its end; returns a text for everything that went wrong."""
        for exchange in parse(path):
            failure = self._terminal(exchange) if exchange.kind == "@" else (
                self._request(exchange) if exchange.kind == ">" else self._command(exchange)
            )
            if failure:
                self.failures.append(f"{path.name}:{exchange.line}: {exchange.kind} {exchange.request}\n{failure}")
        return self.failures

    def _command(self, exchange: Exchange) -> str:
        done = subprocess.run(
            self._argv(exchange), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip
        out, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        failures = []
        for stream, expected, actual in (("output", exchange.output, out), ("errors", exchange.errors, errors)):
            if not self.names.match(expected, actual):
                failures.append(f" {stream}\n{self.names.explain(expected, actual)}")
        if done.returncode != exchange.exit_code:
            failures.append(f" exit code {done.returncode}, not {exchange.exit_code}")
        return "\n".join(failures)

    def _terminal(self, exchange: Exchange) -> str:
        """Type each line of keys as soon as what stands before it is on the screen."""
        with Terminal(self._argv(exchange), self.environment) as terminal:
            part: list[str] = []
            for line in exchange.output:
                if not line.startswith("> "):
                    part.append(line)
                    continue
                pattern = self._screen(part)
                shown = terminal.expect(pattern)
                if shown is not None:
                    return f" before {line!r}\n{self.names.explain(part, shown)}"
                keys = line[2:]
                terminal.type(keys[:-1].encode().decode("unicode_escape") if keys.endswith("\\") else keys + "\r")
                part = []
            out, exit_code = terminal.end()
        failure = "" if self.names.match(part, out) else self.names.explain(part, out)
        return failure if exit_code == exchange.exit_code else f" exit code {exit_code}\n{failure}"

    def _screen(self, part: Sequence[str]) -> re.Pattern[str]:
        """What is on the screen when a program waits for keys: whole lines and perhaps the beginning of one."""
        lines = [r"(?:.*\n)*?" if line == "..." else self.names.pattern(line) + r" *\n?" for line in part]
        return re.compile("".join(lines))

    def _request(self, exchange: Exchange) -> str:
        method, _, rest = exchange.request.partition(" ")
        path, _, body = self.names.fill(rest).partition(" ")
        headers = dict(header.split(": ", 1) for header in exchange.headers)
        if body:
            headers = {"Content-Type": "application/json", **headers}
        answer = self.engine.request(method, path, raw=body.encode() if body else None, headers=headers)
        actual = f"< {answer.status} {answer.body.decode(errors='replace')}".rstrip()
        expected = "\n".join(exchange.output)
        same = self.names.match_body(expected, actual)
        return "" if same else f"  expected:\n    {expected}\n  but it was:\n    {actual}"

    def _argv(self, exchange: Exchange) -> list[str]:
        return [*self.engine.enter(), "bash", "-c", 'cd "$DIR"; ' + self.names.fill(exchange.request)]
