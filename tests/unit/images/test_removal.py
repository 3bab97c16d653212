"""What `docker rmi` takes away."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from holdfast.errors import Conflict
from holdfast.images import removal
from holdfast.images.model import Image

ID = "sha256:" + "ab" * 32
SHORT = "ab" * 6
DIGEST = "sha256:" + "cd" * 32
STOPPED = ("1" * 64, False)
RUNNING = ("2" * 64, True)


def image(*tags: str, digests: tuple[str, ...] = ()) -> Image:
    return Image(ID, tags, digests, datetime.now(UTC), None, {}, (), 0)


@pytest.mark.parametrize(
    ("name", "tags", "digests", "users", "force", "untag", "delete"),
    [
        ("a", ["a:latest"], [], [], False, ["a:latest"], True),
        ("a", ["a:latest", "b:1"], [], [], False, ["a:latest"], False),
        ("a", ["a:latest", "b:1"], [], [RUNNING], False, ["a:latest"], False),
        ("a", ["a:latest"], [f"a@{DIGEST}"], [], False, ["a:latest", f"a@{DIGEST}"], True),
        ("a", ["a:latest", "a:1"], [f"a@{DIGEST}"], [], False, ["a:latest"], False),
        ("a", ["a:latest", "b:1"], [f"a@{DIGEST}"], [], False, ["a:latest", f"a@{DIGEST}"], False),
        (f"a@{DIGEST}", ["a:latest"], [f"a@{DIGEST}"], [], False, [f"a@{DIGEST}"], False),
        (f"a@{DIGEST}", [], [f"a@{DIGEST}"], [], False, [f"a@{DIGEST}"], True),
        ("a", ["a:latest"], [], [STOPPED], True, ["a:latest"], True),
        ("a", ["a:latest"], [], [RUNNING], True, ["a:latest"], False),
        (ID, ["a:latest"], [f"a@{DIGEST}"], [], False, ["a:latest", f"a@{DIGEST}"], True),
        (SHORT, [], [], [], False, [], True),
        (SHORT, ["a:latest", "b:1"], [], [], True, ["a:latest", "b:1"], True),
        (SHORT, ["a:latest"], [], [STOPPED], True, ["a:latest"], True),
    ],
)
def test_plan(
    name: str,
    tags: list[str],
    digests: list[str],
    users: list[tuple[str, bool]],
    force: bool,
    untag: list[str],
    delete: bool,
) -> None:
    plan = removal.plan(name, image(*tags, digests=tuple(digests)), users, force=force)
    assert (list(plan.untag), plan.delete) == (untag, delete)


@pytest.mark.parametrize(
    ("name", "tags", "users", "force", "message"),
    [
        (
            "a:latest", ["a:latest"], [STOPPED], False,
            'conflict: unable to remove repository reference "a:latest" (must force) - container 111111111111 is using'
            f" its referenced image {SHORT}",
        ),
        (
            SHORT, ["a:latest"], [STOPPED], False,
            f"conflict: unable to delete {SHORT} (must be forced) - image is being used by stopped container"
            " 111111111111",
        ),
        (
            SHORT, ["a:latest"], [STOPPED, RUNNING], True,
            f"conflict: unable to delete {SHORT} (cannot be forced) - image is being used by running container"
            " 222222222222",
        ),
        (
            SHORT, ["a:latest", "b:1"], [], False,
            f"conflict: unable to delete {SHORT} (must be forced) - image is referenced in multiple repositories",
        ),
    ],
)  # fmt: skip
def test_conflicts(name: str, tags: list[str], users: list[tuple[str, bool]], force: bool, message: str) -> None:
    with pytest.raises(Conflict) as refused:
        removal.plan(name, image(*tags), users, force=force)
    assert str(refused.value) == message
