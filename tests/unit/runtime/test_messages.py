from __future__ import annotations

import pytest

from holdfast.errors import InvalidParameter
from holdfast.runtime.messages import StartFailed, create_failed, exec_failed, plain_text

PREFIX = (
    "failed to create task for container: failed to create shim task: "
    "OCI runtime create failed: crun create failed: "
)
START = "unable to start container process: "


@pytest.mark.parametrize(
    ("said", "command", "why", "exit_code"),
    [
        ("executable file `nosuch` not found in $PATH: No such file or directory\n", "nosuch",
         'exec: "nosuch": executable file not found in $PATH', 127),
        ("executable file `/no` not found in $PATH: No such file or directory\n", "/no",
         'exec: "/no": stat /no: no such file or directory', 127),
        ("open executable: Operation not permitted\n", "/etc", 'exec: "/etc": permission denied', 126),
        ("the path `/etc` is not a regular file\n", "/etc", 'exec: "/etc": permission denied', 126),
        ("the path `/usr/bin/x` exists but it is not executable: Permission denied\n", "x",
         'exec: "x": permission denied', 126),
        ("the path `/usr/bin/x` exists but it is not executable\n", "x", 'exec: "x": permission denied', 126),
        ('exec: "/etc": is a directory\n', "/etc", 'exec: "/etc": permission denied', 126),
        ("mount source `/a` is not a regular file\n", "m", "mount source `/a` is not a regular file", 128),
        ("open executable: Operation not permitted\n", "", 'exec: "": executable file not found in $PATH', 127),
        ("open executable: Permission denied\n", "x", 'exec: "x": permission denied', 126),
        ("mount `/a` to `b`: No such file or directory\n", "x", "mount `/a` to `b`: no such file or directory", 127),
        ("mount `/a` to `b`: Not a directory\n", "x",
         "mount `/a` to `b`: not a directory: Are you trying to mount a directory onto a file (or vice-versa)? "
         "Check if the specified host path exists and is the expected type", 126),
        ("write to `memory.max`: Device or resource busy", "x", "write to `memory.max`: device or resource busy", 128),
        ("", "x", "the runtime gave no reason", 128),
        ('time="2026-01-01T00:00:00Z" level=error msg="runc create failed: unable to start container process: '
         'exec: \\"nosuch\\": executable file not found in $PATH"\n', "nosuch",
         'exec: "nosuch": executable file not found in $PATH', 127),
    ],
)
def test_in_dockers_words(said: str, command: str, why: str, exit_code: int) -> None:
    failed = create_failed("crun", said, command)
    assert str(failed) == PREFIX + START + why
    assert failed.exit_code == exit_code
    assert isinstance(failed, InvalidParameter)


def test_exec_has_its_own_beginning() -> None:
    failed = exec_failed("executable file `x` not found in $PATH: No such file or directory", "x")
    assert str(failed) == f'OCI runtime exec failed: exec failed: {START}exec: "x": executable file not found in $PATH'


def test_exit_code_survives_more_text() -> None:
    outer = StartFailed("inner", 126, hint="h").within("start c1")
    assert (str(outer), outer.exit_code, outer.hint) == ("start c1: inner", 126, "h")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ('{"msg":"something","level":"error","time":"2026-01-01T00:00:00Z"}\n', "something"),
        ("2026-01-01T00:00:00.5Z: something\n", "something"),
        ("one\ntwo\none\n", "one; two"),
        ("{not json\n", "{not json"),
    ],
)
def test_plain_text(said: str, text: str) -> None:
    assert plain_text(said) == text
