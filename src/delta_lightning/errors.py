"""The errors a user can meet. Every message says what, what was wanted, what was got, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class DeltaError(Exception):
    """Base of every error that `delta_lightning` raises on purpose. The command line prints it without a traceback."""


class ConfigError(DeltaError, ValueError):
    """A config, file or model that cannot be run; raised before anything heavy loads (exit code 2).

    Args:
        what: the setting or file at fault, as the user writes it.
        wanted: what would be accepted.
        got: what was found, with the numbers.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, wanted: str, got: str, remedy: str) -> None:
        super().__init__(f"{what}: wanted {wanted}, got {got}. {remedy}")
        self.what, self.wanted, self.got, self.remedy = what, wanted, got, remedy

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.wanted, self.got, self.remedy)


def _rebuild(what: str, wanted: str, got: str, remedy: str) -> ConfigError:
    return ConfigError(what, wanted=wanted, got=got, remedy=remedy)


class RunError(DeltaError, RuntimeError):
    """A run that cannot go on: verifier broken, disk full, weights not where they should be (exit code 1)."""


def check_path(path: str | Path) -> str:
    """A remedy for a path that leads nowhere: where a relative one begins."""
    return (
        "Check the path." if Path(path).is_absolute() else f"Check the path, which begins in the working folder, {Path.cwd()}."
    )


_COLLECTED: ContextVar[list[ConfigError] | None] = ContextVar("collected", default=None)


def require(condition: bool, what: str, *, wanted: str, got: object, remedy: str) -> None:
    """Raise `ConfigError` unless `condition` holds. For the `__post_init__` of parts."""
    if not condition:
        refuse(ConfigError(what, wanted=wanted, got=repr(got), remedy=remedy))


def refuse(error: ConfigError) -> None:
    """Raise `error`; within `collected_errors` note it and go on."""
    found = _COLLECTED.get()
    if found is None:
        raise error
    found.append(error)


@contextmanager
def collected_errors() -> Iterator[list[ConfigError]]:
    """Within the block `require` and `refuse` fill the list that is given, so that all mistakes can be said and not the first.

    What was built from refused values must not be used.
    """
    found: list[ConfigError] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)
