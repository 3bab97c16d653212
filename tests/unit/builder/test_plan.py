"""Plans: stages, steps, images, and the Dockerfile that buildah gets."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from holdfast.builder.dockerfile import parse
from holdfast.builder.plan import Plan, expand, make_plan
from holdfast.errors import InvalidParameter

ID = "sha256:" + "1" * 64


def plan(
    text: str,
    target: str = "",
    arguments: Mapping[str, str | None] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Plan:
    return make_plan(parse(text.encode(), "Dockerfile"), target, arguments or {}, labels or {})


STAGES = """ARG T=1
FROM busybox:${T} AS one
RUN a
FROM one AS two
SHELL ["/bin/ash", "-c"]
COPY --from=one /a /b
COPY --from=0 /a /b
COPY --from=other:2 /a /b
FROM two
RUN c
"""


def test_stages_and_images() -> None:
    made = plan(STAGES, arguments={"T": "9", "UNUSED": "x", "http_proxy": "p"})
    assert [(stage.base, stage.base_stage) for stage in made.stages] == [("busybox:9", None), ("", 0), ("", 1)]
    assert made.images() == ("busybox:9", "other:2")
    assert (made.step_count, made.step_of("busybox:9"), made.step_of("other:2")) == (10, 2, 8)
    assert [made.text_of(number) for number in (1, 2, 10)] == ["ARG T=1", "FROM busybox:${T} AS one", "RUN c"]
    assert made.unused_arguments == ("UNUSED",)
    assert made.base_of_result == "busybox:9"
    assert made.shell_of(2, 1, {}) == ("/bin/ash", "-c")
    assert made.shell_of(0, 1, {"busybox:9": ("/sh",)}) == ("/sh",)


def test_buildah_gets_ids_the_target_and_labels() -> None:
    made = plan(STAGES, "TWO", labels={"b": 'say "$x"', "a": "1\\"})
    written = made.written({"busybox:1": ID, "other:2": ID}).splitlines()
    assert written[0] == "# escape=\\"
    assert f"FROM {'1' * 64} AS one" in written
    assert "FROM one AS two" in written
    assert f"COPY --from={'1' * 64} /a /b" in written
    assert "COPY --from=one /a /b" in written
    assert written[-2:] == ['LABEL "a"="1\\\\"', 'LABEL "b"="say \\"\\$x\\""']
    assert "RUN c" not in written
    assert made.text_of(made.step_count) == 'LABEL b=say "$x"'


@pytest.mark.parametrize(
    ("text", "values", "expanded"),
    [
        ("a:$x", {"x": "1"}, "a:1"),
        ("a:${x}b", {}, "a:b"),
        ("${x:-d}", {}, "d"),
        ("${x:-d}", {"x": "1"}, "1"),
        ("${x:+d}", {"x": "1"}, "d"),
        ("\\$x", {"x": "1"}, "$x"),
    ],
)
def test_variables(text: str, values: dict[str, str], expanded: str) -> None:
    assert expand(text, values) == expanded


@pytest.mark.parametrize(
    ("text", "target", "refusal"),
    [
        ("FROM a", "nope", 'target stage "nope" could not be found'),
        ("FROM a", "1", 'target stage "1" could not be found'),
        ("FROM $X", "", "base name ($X) should not be blank"),
        ("FROM a AS b\nFROM a AS B", "", "B stage name already used"),
    ],
)
def test_refusals(text: str, target: str, refusal: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        plan(text, target)
    assert str(refused.value) == refusal
