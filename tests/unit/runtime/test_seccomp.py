from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import InvalidParameter
from holdfast.runtime.capabilities import DEFAULT
from holdfast.runtime.filters import ANNOTATION, COMPILED_FILE, FilterCache, read_filter
from holdfast.runtime.seccomp import PROFILE_PATHS, Profile

RULES: list[dict[str, Any]] = [
    {"names": ["a"], "action": "ALLOW", "args": [], "includes": {}, "excludes": {}},
    {"names": ["b"], "action": "ALLOW", "includes": {"caps": ["CAP_X"]}},
    {"names": ["c"], "action": "ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_X"]}},
    {"names": ["d"], "action": "ALLOW", "includes": {"arches": ["arm64"]}},
    {"names": ["e"], "action": "ALLOW", "excludes": {"arches": ["arm64"]}},
    {"names": ["f"], "action": "ALLOW", "includes": {"minKernel": "5.10"}},
    {"name": "g", "action": "ALLOW", "args": [{"index": 0, "value": 1, "op": "EQ"}]},
]
TEXT = json.dumps({
    "defaultAction": "ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": RULES,
})


def names(found: Any) -> str:
    return "".join(name for rule in found["syscalls"] for name in rule["names"])


@pytest.mark.parametrize(
    ("caps", "machine", "kernel", "expected"),
    [
        ((), "x86_64", (6, 1), "acefg"),
        (("CAP_X",), "x86_64", (6, 1), "abefg"),
        ((), "aarch64", (6, 1), "acdfg"),
        ((), "x86_64", (5, 9), "aceg"),
        ((), "riscv64", (5, 10), "acefg"),
    ],
)
def test_conditions(caps: tuple[str, ...], machine: str, kernel: tuple[int, int], expected: str) -> None:
    assert names(Profile(TEXT).for_container(frozenset(caps), machine, kernel)) == expected


def test_form_of_the_oci_spec() -> None:
    found: Any = Profile(TEXT).for_container(frozenset(), "x86_64", (6, 1))
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (found["defaultAction"], found["defaultErrnoRet"]) == ("ERRNO", 38)
    assert found["syscalls"][0] == {"names": ["a"], "action": "ALLOW"}
    assert found["syscalls"][1] == {"names": ["c"], "action": "ERRNO", "errnoRet": 1}
    assert found["syscalls"][-1] == {"names": ["g"], "action": "ALLOW", "args": RULES[-1]["args"]}
    assert "architectures" not in Profile(TEXT).for_container(frozenset(), "pdp11", (6, 1))


def test_conversions_are_cached() -> None:
    profile = Profile(TEXT)
    assert profile.for_container(frozenset(), "x86_64", (6, 1)) is profile.for_container(frozenset(), "x86_64", (6, 1))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"defaultAction": 1}'])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed"):
        Profile(text)


def test_the_installed_profile() -> None:
    path = next((path for path in PROFILE_PATHS if path.exists()), None)
    if path is None:
        pytest.skip("this machine has no seccomp profile")
    found: Any = Profile(path.read_bytes()).for_container(frozenset(DEFAULT), "x86_64", (6, 1))
    allowed = {name for rule in found["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert {"read", "execve", "arch_prctl", "chroot"} <= allowed
    assert not {"init_module", "kexec_load", "bpf", "settimeofday"} & allowed


def test_filters_are_learnt_once(tmp_path: Path) -> None:
    spec: Any = {"process": {}, "linux": {"seccomp": {"defaultAction": "ALLOW"}, "cgroupsPath": "/x"},
                 "annotations": {"a": "b"}}
    cache = FilterCache(tmp_path / "seccomp", "crun 1")
    same: Any
    same, key = cache.apply(spec)
    assert same is spec
    assert len(key) == 64
    state = tmp_path / "state"
    state.mkdir()
    cache.learn(key, read_filter(state))                       # the runtime left none
    assert cache.apply(spec) == (spec, key)
    (state / COMPILED_FILE).write_bytes(b"\1" * 16)
    cache.learn(key, read_filter(state))
    for again in (cache, FilterCache(tmp_path / "seccomp", "crun 1")):
        changed, nothing = again.apply(spec)
        assert nothing == ""
        assert changed == {"process": {}, "linux": {"cgroupsPath": "/x"},
                           "annotations": {"a": "b", ANNOTATION: "AQEBAQEBAQEBAQEBAQEBAQ=="}}
    assert FilterCache(tmp_path / "seccomp", "crun 2").apply(spec)[1] not in ("", key)
    assert spec["linux"]["seccomp"]


def test_a_spec_without_filter_is_left_alone(tmp_path: Path) -> None:
    spec: Any = {"linux": {}}
    assert FilterCache(tmp_path, "x").apply(spec) == (spec, "")


@pytest.mark.parametrize("data", [b"", b"123", b"\0" * 8 * 5000])
def test_filters_that_make_no_sense(tmp_path: Path, data: bytes) -> None:
    (tmp_path / COMPILED_FILE).write_bytes(data)
    assert read_filter(tmp_path) == ""
