"""What buildah writes, turned into the messages of Docker's classic builder. Pure but for the clock of the caller.

    [1/2] STEP 2/3: RUN make     →  Step 3/6 : RUN make
    --> Using cache 0123...      →   ---> Using cache
    --> 0123456789a              →   ---> 0123456789ab
    anything else                →  as it is, red if it came from standard error

A program of the build writes to the same pipes and can imitate these lines. That misleads the reader of its own build
and nobody else: the id of the image comes from what buildah writes last, when every such program is gone.
Source: recordings of Docker Engine; buildah, imagebuildah.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.builder.dockerfile import Instruction
from holdfast.builder.plan import Plan
from holdfast.images.progress import stream

Emit = Callable[[dict[str, Any]], object]

_STEP: Final = re.compile(r"(?:\[(\d+)/\d+\] )?STEP (\d+)/(\d+): (.*)")
_CACHED: Final = re.compile(r"--> Using cache ([0-9a-f]{64})")
_MADE: Final = re.compile(r"--> ([0-9a-f]{10,64})")
_COMMIT: Final = re.compile(r"(?:\[\d+/\d+\] )?COMMIT ?")
_ID: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_CONTROL: Final = re.compile(r"(\[|STEP |--> |COMMIT|sha256:|[0-9a-f]{64})")
_FAREWELL: Final = re.compile(r"Error: |error running container: |: exit status ")
_LAST_WORDS: Final = re.compile(r"error running container: |Error: (building|committing|checking) ")
_UNUSED: Final = "[Warning] one or more build args were not consumed"
"""Said in our words at the end."""
_RED: Final = "\x1b[91m{}\x1b[0m"
_HELD_LINES: Final = 40
_LINE_BYTES: Final = 32 << 10
"""A longer line is nobody's but a program's."""


@dataclass(frozen=True, slots=True)
class Base:
    """What counts of an image that a stage starts from: its id, its shell, how many instructions it left for us."""

    id: str
    shell: tuple[str, ...] = ()
    triggers: int = 0


class Transcript:
    """Follows one run of buildah. `whole_id` makes the id of an image in buildah's store whole."""

    def __init__(
        self, plan: Plan, bases: Mapping[str, Base], emit: Emit, whole_id: Callable[[str], str] = lambda prefix: prefix
    ) -> None:
        self.image_id = ""
        """The id that the last line named, without `sha256:`; "" so far."""
        self.errors: list[str] = []
        """What buildah itself said last, if it failed; programs of the build may have said things that look like it."""
        self.stage = 0
        self.number = 0
        """Where the build is: the stage, and the instruction within it; 0 is FROM."""
        self.trigger = ""
        """The instruction that the base image left to be run now, if one runs."""
        self._plan = plan
        self._bases = bases
        self._emit = emit
        self._whole_id = whole_id
        self._results: dict[int, str] = {}
        self._offset = len(plan.before)
        self._began = False
        self._triggers = 0
        self._seen = 0
        self._pending = b""
        self._midline = False
        self._half_error = b""
        self._held: list[str] = []

    def take(self, kind: str, data: bytes) -> None:
        """Take what `buildah.Call.pieces` gives: output, errors, or a moment in which nothing came."""
        if kind == "out":
            self._output(data)
        elif kind == "err":
            whole, newline, self._half_error = (self._half_error + data).rpartition(b"\n")
            self._complain(whole + newline)
            if len(self._half_error) > _LINE_BYTES:
                self._complain(self._half_error)
                self._half_error = b""
        else:
            self._flush()

    # -- standard output -----------------------------------------------------------------------------------------------

    def _output(self, data: bytes) -> None:
        """Take a piece of standard output."""
        self._pending += data
        while b"\n" in self._pending:
            line, _, self._pending = self._pending.partition(b"\n")
            if self._midline:
                self._midline = False
                self._say(line + b"\n")
            else:
                self._line(line)
        if self._pending and (self._midline or len(self._pending) > _LINE_BYTES):
            self._flush(whatever=True)

    def _flush(self, *, whatever: bool = False) -> None:
        """Pass on the beginning of a line, `whatever` it is, or if it will be none of buildah's own."""
        if self._pending and (whatever or _CONTROL.match(self._pending.decode(errors="replace")) is None):
            self._say(self._pending)
            self._pending = b""
            self._midline = True

    def end(self, *, failed: bool) -> None:
        """Take what is left once the output has ended; after a failure the last complaints are buildah's own."""
        if self._pending:
            self._line(self._pending)
            self._pending = b""
        if self._half_error:
            self._complain(self._half_error)
            self._half_error = b""
        if failed:
            own = [number for number, line in enumerate(self._held) if _LAST_WORDS.match(line)]
            first = own[0] if own else max(0, len(self._held) - 1)
            self.errors = [line.rstrip("\n") for line in self._held[first:]]
            del self._held[first:]
        self._release()

    def _complain(self, data: bytes) -> None:
        """Take lines of standard error. What may be buildah's last words waits until something follows."""
        said: list[str] = []
        for line in data.splitlines(keepends=True):
            text = line.decode(errors="replace")
            if _FAREWELL.match(text) and not (said and text.startswith(":")):
                self._red(said)
                said = []
                self._held.append(text)
                if len(self._held) > _HELD_LINES:
                    self._red([self._held.pop(0)])
            else:
                self._release()
                said.append(text)
        self._red(said)

    def _release(self) -> None:
        held, self._held = self._held, []
        self._red(held)

    def _red(self, lines: Sequence[str]) -> None:
        if lines:
            self._emit(stream(_RED.format("".join(lines))))

    # -- inner ---------------------------------------------------------------------------------------------------------

    def _line(self, line: bytes) -> None:
        self._release()
        text = line.decode(errors="replace")
        if (match := _STEP.fullmatch(text)) and self._step(
            int(match[1] or 1) - 1, int(match[2]), int(match[3]), match[4]
        ):
            return
        if match := _CACHED.fullmatch(text):
            if self._shows_results:
                self._emit(stream(" ---> Using cache\n"))
        elif match := _MADE.fullmatch(text):
            self._made(match[1])
        elif _COMMIT.fullmatch(text) or text.startswith(_UNUSED):
            pass
        elif match := _ID.fullmatch(text):
            self.image_id = match[1]
        else:
            self._say(line + b"\n")

    @property
    def _shows_results(self) -> bool:
        return not self.trigger or self.number + 1 >= self._triggers

    def _step(self, stage: int, number: int, count: int, text: str) -> bool:
        """Take a step if it is one that comes next; the instructions of triggers are not counted by Docker."""
        comes_next = number == self._seen + 1 if stage == self.stage else number == 1 and stage > self.stage
        if stage >= len(self._plan.stages) or not comes_next:
            return False
        self._seen = number
        own = len(self._plan.stages[stage].instructions) + (
            len(self._plan.labels) if stage == len(self._plan.stages) - 1 else 0
        )
        if stage > self.stage:
            self._next_stage(stage)
        if not self._began:
            self._begin()
        if number == 1:
            self.number = 0
            self._begin_stage(stage)
            return True
        triggers = max(0, count - own)
        if number - 2 < triggers:
            self._triggers, self.number, self.trigger = triggers, number - 2, text
            return True
        self.number, self.trigger = number - 1 - triggers, ""
        self._announce(self._offset + self.number + 1)
        return True

    def _begin(self) -> None:
        self._began = True
        for place in range(len(self._plan.before)):
            self._announce(place + 1)

    def _next_stage(self, stage: int) -> None:
        if found := self._results.get(self.stage):
            self._emit({"aux": {"ID": f"sha256:{self._whole_id(found)}"}})
        while self.stage < stage:
            self._offset += len(self._plan.stages[self.stage].instructions)
            self.stage += 1
        self.number, self.trigger = 0, ""

    def _begin_stage(self, stage: int) -> None:
        self._announce(self._offset + 1)
        base = self._base_of(stage)
        if triggers := self._triggers_of(stage):
            self._emit(stream(f"# Executing {triggers} build trigger"))
            if triggers > 1:
                self._emit(stream("s"))
            self._emit(stream("\n"))
        else:
            self._emit(stream(f" ---> {base[:12]}\n"))

    def _triggers_of(self, stage: int) -> int:
        found = self._plan.stages[stage]
        if found.base_stage is None:
            return self._bases[found.base].triggers if found.base else 0
        return sum(1 for each in self._plan.stages[found.base_stage].instructions if each.name == "ONBUILD")

    def _base_of(self, stage: int) -> str:
        found = self._plan.stages[stage]
        if found.base_stage is not None:
            return self._results.get(found.base_stage, "")
        result = self._bases[found.base].id.removeprefix("sha256:") if found.base else ""
        self._results[stage] = result
        return result

    def _made(self, prefix: str) -> None:
        whole = self._whole_id(prefix)
        self._results[self.stage] = whole
        if self._shows_results and (self.number or self.trigger):
            self._emit(stream(f" ---> {whole[:12]}\n"))

    def _announce(self, number: int) -> None:
        self._emit(stream(f"Step {number}/{self._plan.step_count} : {self._plan.text_of(number)}"))
        self._emit(stream("\n"))

    def _say(self, data: bytes) -> None:
        self._release()
        self._emit(stream(data.decode(errors="replace")))

    @property
    def instruction(self) -> Instruction | None:
        """The instruction of the Dockerfile that runs now, None for one of a base image and for a label."""
        instructions = self._plan.stages[self.stage].instructions
        return None if self.trigger or self.number >= len(instructions) else instructions[self.number]

    @property
    def command(self) -> str:
        """The command that runs now, as Docker shows it when it fails."""
        shells = {name: base.shell for name, base in self._bases.items()}
        shell = self._plan.shell_of(self.stage, max(1, self.number), shells)
        instruction = self.instruction
        if instruction is None:
            return " ".join([*shell, self.trigger.partition(" ")[2]])
        words = instruction.json_words
        return " ".join(words if words is not None else [*shell, instruction.arguments])
