"""What running a program against its tests showed."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.types import Status


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many of `total` tests passed, and what that means.

    Attributes:
        status: CORRECT, INCORRECT, TIMEOUT, or ERROR where the tests themselves are broken.
        reason: the first failure, one line for people; text of the program may stand in it.
    """

    status: Status
    passed: int
    total: int
    reason: str = ""
