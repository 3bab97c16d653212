"""What a build will do: its stages up to the target, its steps as Docker counts them, the images that it needs. Pure.

What buildah gets is the Dockerfile up to the target, line by line as it was written, but for two things: images are
named by their ids, so that it can take no others, and the labels of the request are instructions at the end, as Docker
makes them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.builder.dockerfile import Dockerfile, Instruction
from holdfast.errors import InvalidParameter

SCRATCH: Final = "scratch"
DEFAULT_SHELL: Final = ("/bin/sh", "-c")

_VARIABLE: Final = re.compile(r"\\?\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^{}]*))?\})")
_PREDEFINED: Final = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"})


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. `base` is the image that it starts from, "" for scratch; or `base_stage` the number of a stage."""

    name: str
    base: str
    base_stage: int | None
    instructions: tuple[Instruction, ...]

    @property
    def is_bare(self) -> bool:
        """Whether it adds nothing to its base."""
        return len(self.instructions) == 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`before` are the ARG before the first stage; `labels` become the last steps of the last stage."""

    before: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    labels: tuple[tuple[str, str], ...]
    escape: str
    unused_arguments: tuple[str, ...]

    @property
    def step_count(self) -> int:
        """How many steps Docker counts."""
        return len(self.before) + sum(len(stage.instructions) for stage in self.stages) + len(self.labels)

    @property
    def runs_programs(self) -> bool:
        """Whether any instruction runs a program, now or in a build that starts from here."""
        names = {instruction.name for stage in self.stages for instruction in stage.instructions}
        return not names.isdisjoint({"RUN", "ONBUILD"})

    @property
    def base_of_result(self) -> str:
        """The image at the bottom of the last stage, "" for scratch."""
        stage = self.stages[-1]
        while stage.base_stage is not None:
            stage = self.stages[stage.base_stage]
        return stage.base

    def images(self) -> tuple[str, ...]:
        """The images that are needed, as they are named: first those that stages start from, in order."""
        bases = [stage.base for stage in self.stages if stage.base]
        return tuple(dict.fromkeys([*bases, *(name for _, _, name in self._copied())]))

    def step_of(self, image: str) -> int:
        """The number of the first step that needs an image."""
        number = len(self.before)
        for stage in self.stages:
            for instruction in stage.instructions:
                number += 1
                if image in (stage.base if instruction.name == "FROM" else "", instruction.flag("from")):
                    return number
        return number

    def text_of(self, number: int) -> str:
        """What Docker shows for a step, counted from 1."""
        shown = [instruction.text for instruction in self.before]
        for stage in self.stages:
            shown += [instruction.text for instruction in stage.instructions]
        shown += [f"LABEL {name}={value}" for name, value in self.labels]
        return shown[number - 1]

    def written(self, ids: Mapping[str, str]) -> str:
        """The Dockerfile for buildah; `ids` maps the names of images to their ids."""
        copied = {(place, number): name for place, number, name in self._copied()}
        lines = [f"# escape={self.escape}"]
        lines += [line for instruction in self.before for line in instruction.raw]
        for place, stage in enumerate(self.stages):
            for number, instruction in enumerate(stage.instructions):
                if instruction.name == "FROM":
                    lines.append(self._from(stage, ids))
                elif (name := copied.get((place, number))) is not None:
                    lines += [line.replace(f"--from={name}", f"--from={_hex(ids[name])}") for line in instruction.raw]
                else:
                    lines += instruction.raw
        lines += [f"LABEL {self._quoted(name)}={self._quoted(value)}" for name, value in self.labels]
        return "\n".join(lines) + "\n"

    def shell_of(self, place: int, number: int, shells: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """The shell that runs instruction `number` of a stage; `shells` are those that images set."""
        stage = self.stages[place]
        for instruction in reversed(stage.instructions[:number]):
            if instruction.name == "SHELL" and instruction.json_words:
                return tuple(instruction.json_words)
        if stage.base_stage is not None:
            return self.shell_of(stage.base_stage, len(self.stages[stage.base_stage].instructions), shells)
        return tuple(shells.get(stage.base) or DEFAULT_SHELL)

    def _copied(self) -> Iterator[tuple[int, int, str]]:
        """The images that files are copied from: stage, instruction, name. Stages win over images."""
        for place, stage in enumerate(self.stages):
            earlier = {other.name.lower() for other in self.stages[:place] if other.name}
            for number, instruction in enumerate(stage.instructions):
                name = instruction.flag("from") if instruction.name == "COPY" else ""
                if name and name.lower() not in earlier and not (name.isdigit() and int(name) < place):
                    yield place, number, name

    def _from(self, stage: Stage, ids: Mapping[str, str]) -> str:
        if stage.base_stage is not None:
            base = self.stages[stage.base_stage].name
        else:
            base = _hex(ids[stage.base]) if stage.base else SCRATCH
        return f"FROM {base} AS {stage.name}" if stage.name else f"FROM {base}"

    def _quoted(self, text: str) -> str:
        escaped = re.sub(r'(["$' + re.escape(self.escape) + r"])", lambda match: self.escape + match[1], text)
        return f'"{escaped}"'


def make_plan(
    dockerfile: Dockerfile, target: str, arguments: Mapping[str, str | None], labels: Mapping[str, str]
) -> Plan:
    """Lay out a Dockerfile that was checked. Raises InvalidParameter for stages that cannot be."""
    before: list[Instruction] = []
    groups: list[list[Instruction]] = []
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            groups.append([instruction])
        elif groups:
            groups[-1].append(instruction)
        else:
            before.append(instruction)
    values = _values(before, arguments)
    stages: list[Stage] = []
    for group in groups:
        stages.append(_stage(group, stages, values))
    stages = stages[: _target(stages, target) + 1]
    return Plan(
        before=tuple(before),
        stages=tuple(stages),
        labels=tuple(sorted(labels.items())),
        escape=dockerfile.escape,
        unused_arguments=_unused(dockerfile, arguments),
    )


def _stage(group: Sequence[Instruction], earlier: Sequence[Stage], values: Mapping[str, str]) -> Stage:
    words = group[0].arguments.split()
    name = words[2] if len(words) == 3 else ""
    if name and name.lower() in {stage.name.lower() for stage in earlier}:
        raise InvalidParameter(f"{name} stage name already used")
    base = expand(words[0].strip("\"'"), values)
    if not base:
        raise InvalidParameter(f"base name ({words[0]}) should not be blank")
    numbers = {stage.name.lower(): number for number, stage in enumerate(earlier) if stage.name}
    if base.lower() in numbers:
        return Stage(name, "", numbers[base.lower()], tuple(group))
    return Stage(name, "" if base == SCRATCH else base, None, tuple(group))


def _target(stages: Sequence[Stage], target: str) -> int:
    """The number of the stage to stop at. Raises InvalidParameter."""
    if not target:
        return len(stages) - 1
    for number, stage in enumerate(stages):
        if stage.name.lower() == target.lower():
            return number
    if target.isascii() and target.isdigit() and int(target) < len(stages):
        return int(target)
    raise InvalidParameter(f'target stage "{target}" could not be found')


def expand(text: str, values: Mapping[str, str]) -> str:
    """Put variables into the name of an image; one that is not set is empty.

    Source: the Dockerfile reference, "Environment replacement".
    """

    def value_of(match: re.Match[str]) -> str:
        if match[0].startswith("\\"):
            return match[0][1:]
        value = values.get(match[1] or match[2], "")
        if match[3] == "-":
            return value or match[4]
        if match[3] == "+":
            return match[4] if value else ""
        return value

    return _VARIABLE.sub(value_of, text)


def _values(before: Sequence[Instruction], arguments: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that may stand in FROM: those of ARG before the first one, the request's own value over theirs."""
    values: dict[str, str] = {}
    for name, default in _declared(before):
        given = arguments.get(name)
        values[name] = expand(default, values) if given is None else given
    return values


def _declared(instructions: Sequence[Instruction]) -> Iterator[tuple[str, str]]:
    for instruction in instructions:
        if instruction.name == "ARG":
            try:
                words = shlex.split(instruction.arguments)
            except ValueError:
                words = instruction.arguments.split()
            for word in words:
                name, _, default = word.partition("=")
                yield name, default


def _unused(dockerfile: Dockerfile, arguments: Mapping[str, str | None]) -> tuple[str, ...]:
    """The arguments of a request that no ARG takes, as Docker warns of them."""
    declared = {name for name, _ in _declared(dockerfile.instructions)}
    return tuple(sorted(name for name in arguments if name not in declared and name.upper() not in _PREDEFINED))


def _hex(image_id: str) -> str:
    return image_id.removeprefix("sha256:")
