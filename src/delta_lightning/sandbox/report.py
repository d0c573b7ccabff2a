"""What a self-test found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from delta_lightning.sandbox.rung import Rung


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rung that was entered and what each probe program could do in it.

    Args:
        rung: the rung, with its guarantees and what it lacks.
        open: per probe, whether the program got through; only probes that the rung does not promise can be True.
        refused: why the better rungs could not be entered, a line each.
        seconds: how long the test took.
    """

    rung: Rung
    open: Mapping[str, bool]
    refused: tuple[str, ...]
    seconds: float

    @property
    def lines(self) -> tuple[str, ...]:
        """For people: the rung, what it guarantees and lacks, why not a better one."""
        closed = [name for name, got_through in self.open.items() if not got_through]
        got_through = [name for name in self.open if name not in closed]
        summary = f"Sandbox: {self.rung.name}. Probe programs stopped: {', '.join(closed) or 'none'}."
        if got_through:
            summary += f" NOT stopped: {', '.join(got_through)}."
        return (
            summary,
            *(f"  holds: {line}" for line in self.rung.guarantees),
            *(f"  lacks: {line}" for line in self.rung.missing),
            *(f"  could not enter {line}" for line in self.refused),
        )
