"""JSON shapes of the check of a volume's storage. Our own extension."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.volumes.drivers.check import Step


class StepShape(msgspec.Struct, rename="pascal"):
    """One step. `detail` is for people."""

    step: str
    ok: bool = msgspec.field(name="OK")
    detail: str


class CheckShape(msgspec.Struct, rename="pascal"):
    """What was found of a volume: whether its data can be reached, and every step that was taken."""

    name: str
    ok: bool = msgspec.field(name="OK")
    steps: list[StepShape]


def encode_check(name: str, steps: Sequence[Step]) -> CheckShape:
    """Give what was found of a volume."""
    shapes = [StepShape(step.name, step.ok, step.detail) for step in steps]
    return CheckShape(name, all(step.ok for step in steps), shapes)
