"""Reference answers checked against the verifier that will read them, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Problem

NAMED = 5  # offenders named in a message
EVERY = 256  # rows between two calls of `tick`


def check_references(
    problems: Sequence[Problem], verifier: Verifier, *, skip: bool = False, tick: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """The problems whose reference the verifier can use.

    Args:
        problems: to check, and the order of the result. verifier: what will read their references, or what it routes their
            data set to.
        skip: leave out problems whose reference is refused, instead of raising. How many is the difference in length.
        tick: called as (done, total) now and then.

    Raises:
        ConfigError: the verifier has no judge for a data set, or a field that it reads is missing (with `skip` too: that is
            the config's fault, not the row's), or references are refused (how many, and the first five with their reasons).
    """
    judges: dict[str, tuple[Verifier, frozenset[str]]] = {}
    usable: list[Problem] = []
    refused: list[tuple[str, str]] = []
    for done, problem in enumerate(problems, 1):
        if problem.source not in judges:
            judge = verifier.route(problem.source)
            judges[problem.source] = (judge, judge.reference_fields())
        judge, wanted = judges[problem.source]
        missing = sorted(wanted - problem.reference.keys())
        if missing:
            raise ConfigError(
                f"reference of problem {problem.id}",
                wanted=f"the field {missing[0]!r}, which {type(judge).__name__} reads",
                got=f"the fields {', '.join(map(repr, problem.reference)) or 'none'}",
                remedy="Map it to a column of the data, or choose a verifier that fits the data.",
            )
        reason = judge.refuse_reference(problem.reference)
        if reason is None:
            usable.append(problem)
        else:
            refused.append((problem.id, reason))
        if tick is not None and (done % EVERY == 0 or done == len(problems)):
            tick(done, len(problems))
    if refused and not skip:
        named = "; ".join(f"{identity}: {reason}" for identity, reason in refused[:NAMED])
        more = "; ..." if len(refused) > NAMED else ""
        raise ConfigError(
            "data references",
            wanted=f"references that {type(verifier).__name__} can use",
            got=f"{len(refused)} of {len(problems)} that it refuses: {named}{more}",
            remedy="Mend these rows, or set data.unusable_references=skip to leave them out.",
        )
    return usable
