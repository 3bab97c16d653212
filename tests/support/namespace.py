"""Run one test in a forked child with private mounts, so that the kernel undoes them whether it passes or fails."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import ParamSpec

import pytest

from holdfast.kernel import mount
from holdfast.kernel.namespaces import CLONE_NEWNET, CLONE_NEWNS, unshare

P = ParamSpec("P")


def in_mount_namespace(test: Callable[P, None]) -> Callable[P, None]:
    """Decorate a test: it runs in a child with a mount namespace of its own, in which nothing propagates."""
    return _in_child(test, CLONE_NEWNS)


def in_mount_and_network_namespace(test: Callable[P, None]) -> Callable[P, None]:
    """The same with an empty network namespace as well."""
    return _in_child(test, CLONE_NEWNS | CLONE_NEWNET)


def _in_child(test: Callable[P, None], namespaces: int) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
            child = os.fork()
        if child == 0:
            outcome = ("failed", "the child ended without a word")
            try:
                os.close(reader)
                unshare(namespaces)
                mount.mount("none", "/", None, mount.MS_PRIVATE | mount.MS_REC)
                test(*args, **kwargs)
                outcome = ("passed", "")
            except pytest.skip.Exception as skipped:
                outcome = ("skipped", str(skipped))
            except BaseException:  # noqa: BLE001 - whatever the test raises is what the parent reports
                outcome = ("failed", traceback.format_exc())
            finally:
                with open(writer, "wb") as stream:
                    pickle.dump(outcome, stream)
                os._exit(0)
        os.close(writer)
        try:
            with open(reader, "rb") as stream:
                answer = stream.read()
        except BaseException:                                           # a time-out, or Ctrl-C
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            os.waitpid(child, 0)
        kind, text = pickle.loads(answer) if answer else ("failed", "the child was killed")
        if kind == "skipped":
            pytest.skip(text)
        if kind == "failed":
            pytest.fail(text, pytrace=False)

    return run
