"""Work that one rank does for all: every rank gets its result, or its failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from delta_lightning.errors import DeltaError, RunError
from delta_lightning.interfaces import SamplerContext

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Outcome:
    """What rank 0 has to say."""

    value: Any = None
    failure: DeltaError | None = None


def first_does(context: SamplerContext, work: Callable[[], Result]) -> Result:
    """`work` on rank 0, its result on every rank. Collective.

    Raises on every rank what `work` raised, so that none waits for another: `ConfigError` and `RunError` as they are, what was
    not foreseen as it is on rank 0 and as a `RunError` elsewhere.
    """
    outcome = _Outcome()
    if context.rank == 0:
        try:
            outcome = _Outcome(value=work())
        except DeltaError as error:
            outcome = _Outcome(failure=error)
        except BaseException as error:
            context.share(_Outcome(failure=RunError(f"rank 0 failed: {type(error).__name__}: {error}")))
            raise
    outcome = context.share(outcome)[0]
    if outcome.failure is not None:
        raise outcome.failure
    return cast(Result, outcome.value)
