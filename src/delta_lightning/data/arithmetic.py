r"""Generated problems: additions with worked digit steps and a boxed answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

from delta_lightning.errors import ConfigError, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import PromptSource
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class Arithmetic(PromptSource):
    r"""Additions of two numbers, drawn without replacement from all unordered pairs below 10^digits.

    A question is `47+385=`; its worked solution adds digit by digit from the right, carry last:
    `7+5=12 4+8+1=13 0+3+1=4 \boxed{432}`. "train" and "held_out" share no pair, in either order; the held-out problems do not
    depend on `num_train`.

    Args:
        digits: most digits of an operand, 1 to 9: the difficulty.
        num_train: problems of the split "train".
        num_held_out: problems of the split "held_out".
        seed: of the draw.
    """

    digits: int = 3
    num_train: int = 8192
    num_held_out: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            1 <= self.digits <= 9, "Arithmetic.digits", wanted="1 to 9", got=self.digits, remedy="Choose a size in between."
        )
        for name in ("num_train", "num_held_out"):
            value = getattr(self, name)
            require(value >= 1, f"Arithmetic.{name}", wanted="at least 1", got=value, remedy="Raise it.")

    def check(self) -> None:
        """Refuse more problems than there are pairs. Raises `ConfigError`."""
        wanted, pairs = self.num_train + self.num_held_out, self._num_pairs()
        if wanted > pairs:
            raise ConfigError(
                "Arithmetic.num_train + num_held_out",
                wanted=f"at most {pairs}, the pairs of numbers of up to {self.digits} digits",
                got=str(wanted),
                remedy="Lower them, or raise digits.",
            )

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`, in a keyed order. Raises `ConfigError` as `check` does."""
        self.check()
        require(split in ("train", "held_out"), "split", wanted='"train" or "held_out"', got=split, remedy="Name one of them.")
        pairs = self._pairs()
        held_out = [next(pairs) for _ in range(self.num_held_out)]
        chosen = held_out if split == "held_out" else [next(pairs) for _ in range(self.num_train)]
        return [self._problem(low, high) for low, high in chosen]

    def _num_pairs(self) -> int:
        return int(10**self.digits * (10**self.digits + 1) // 2)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """All unordered pairs, smaller number first, in a keyed order, lazily."""
        total, seen, draw = self._num_pairs(), set[int](), 0
        while len(seen) < total:
            index = stable_hash(self.seed, self.digits, "arithmetic", draw) % total
            draw += 1
            if index not in seen:
                seen.add(index)
                yield _unrank(index)

    def _problem(self, low: int, high: int) -> Problem:
        swap = stable_hash(self.seed, "order", low, high) % 2 == 1
        first, second = (high, low) if swap else (low, high)
        return Problem(
            id=f"{first}+{second}",
            question=f"{first}+{second}=",
            reference={"answer": str(first + second)},
            source="arithmetic",
            solution=worked(first, second),
        )


def _unrank(index: int) -> tuple[int, int]:
    """Pair number `index` of (0, 0), (0, 1), (1, 1), (0, 2), (1, 2), ...: the smaller number first."""
    high = (isqrt(8 * index + 1) - 1) // 2
    return index - high * (high + 1) // 2, high


def worked(first: int, second: int) -> str:
    r"""The addition digit by digit from the right, each step with the carry into it if there is one, then the boxed sum."""
    steps, carry = [], 0
    length = max(len(str(first)), len(str(second)))
    for place in range(length):
        left, right = first // 10**place % 10, second // 10**place % 10
        total = left + right + carry
        steps.append(f"{left}+{right}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{' '.join(steps)} \\boxed{{{first + second}}}"
