"""Leads an engine inside the guest as the host asks, as `python -m tests.vm.remote`.

Questions and answers are numbered files of /channel, a folder of the host; each appears there whole, by a rename.

    faults      what to arm in the engine           hung        the fault points at which the engine waits
    ask-N       pickled words, from the host        up          the engine answers and is consistent
    answer-N    pickled answer                      failed      why there is nothing more to expect
"""

from __future__ import annotations

import http.client
import os
import pickle
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.support.life import observe
from tests.support.state import assert_consistent

CHANNEL = Path("/channel")
STATE = Path("/state")


def put(name: str, content: bytes = b"") -> None:
    """Make a file appear on the host."""
    temporary = CHANNEL / f".{name}"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(CHANNEL / name)


def answer(engine: Engine, what: str, *words: Any) -> Any:
    """Do one thing. What may go wrong while the engine is at work is an answer, too."""
    if what == "request":
        return engine.request(*words)
    if what == "load":
        return engine.request("POST", "/images/load?quiet=1", raw=(CHANNEL / "image").read_bytes())
    try:
        return observe(engine)
    except (OSError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


def main() -> int:
    """Start the engine, then answer until the power goes."""
    engine = Engine(STATE / "engine", isolated=False, environment={"HOLDFAST_FAULT_FILE": str(CHANNEL / "hung")})
    engine.run_root = Path("/run/holdfast")
    engine.socket_path = engine.run_root / "holdfast.sock"
    engine.run_root.mkdir(exist_ok=True)
    try:
        engine.start(faults=(CHANNEL / "faults").read_text(), wait_s=100)
        assert_consistent(engine, within_s=30)
        put("up")
        for number in range(1_000_000):
            question = CHANNEL / f"ask-{number}"
            while not question.exists():
                time.sleep(0.005)
            put(f"answer-{number}", pickle.dumps(answer(engine, *pickle.loads(question.read_bytes()))))
    except (AssertionError, OSError, http.client.HTTPException):
        put("failed", f"{traceback.format_exc()}\n{engine.log_tail(60)}".encode())
    return 1


if __name__ == "__main__":
    sys.exit(main())
