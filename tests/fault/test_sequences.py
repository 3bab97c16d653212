"""Every short sequence of volume operations dies at every fault point: see support/sequences.py.

Every test run tries all of up to two operations and a seeded sample of three; `make soak` tries all of three.
"""

from __future__ import annotations

import os
import random

import pytest

from holdfast.store.volumes import VolumeTable
from holdfast.volumes.drivers.local import LocalDriver
from tests.support.sequences import ALPHABET, sequences_of, try_all, try_sequence

pytestmark = [pytest.mark.fault, pytest.mark.kernel]

SAMPLE = 100


def check(sequences: list[tuple[str, ...]], *, fine: bool = True, kill: bool = False) -> None:
    """Try them; every failure is shown, the first ones whole."""
    deaths, wrong = try_all(sequences, fine=fine, kill=kill)
    print(f"{len(sequences)} sequences, {deaths} deaths")
    assert wrong == [], f"{len(wrong)} of {len(sequences)} sequences failed\n\n" + "\n\n".join(wrong[:5])
    assert deaths > len(sequences)


def test_up_to_two_operations() -> None:
    check(sequences_of(ALPHABET, 1))
    check(sequences_of(ALPHABET, 2), fine=False)


def test_real_kills() -> None:
    check(sequences_of(ALPHABET, 1), kill=True)
    check([("run", "rm", "restore-as"), ("fill", "rm-v", "undo"), ("create-labelled", "prune", "undo")], kill=True)


@pytest.mark.soak
def test_three_operations(pytestconfig: pytest.Config) -> None:
    sequences = sequences_of(ALPHABET, 3)
    if pytestconfig.getoption("--soak"):
        check(sequences)
        return
    seed = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"HOLDFAST_SEED={seed}")
    check(random.Random(seed).sample(sequences, SAMPLE), fine=False)


def test_the_harness_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that forgets to tidy up after a death, or to write down labels, is found out."""
    monkeypatch.setattr(LocalDriver, "recover", lambda _: None)
    with pytest.raises(AssertionError, match="killed at volume-staged"):
        try_sequence(["create"])
    monkeypatch.undo()
    monkeypatch.setattr(VolumeTable, "relabel", lambda *_: None)
    with pytest.raises(AssertionError, match="right would be"):
        try_sequence(["create", "relabel", "rest"])
