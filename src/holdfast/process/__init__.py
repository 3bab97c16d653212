"""Other programs: run one to its end, or start one and watch it."""

from holdfast.process.run import CLEAN_ENVIRONMENT, Completed, ProgramFailed, run, spawn

__all__ = ["CLEAN_ENVIRONMENT", "Completed", "ProgramFailed", "run", "spawn"]
