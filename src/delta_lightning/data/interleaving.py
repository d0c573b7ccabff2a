"""Several sequences made one, so that every beginning of it holds them in given shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm

from delta_lightning.errors import ConfigError, require

LONGEST = 100_000  # turns of a period


def turns(weights: Mapping[str, float], setting: str = "weights") -> dict[str, int]:
    """Turns of each name in the shortest period in which all shares are whole numbers of turns.

    A weight is the decimal number that was written: 0.7 is 7/10 and not its nearest binary fraction. Weights need not add up
    to 1: {a: 3, b: 1} are shares of 3/4 and 1/4. Raises `ConfigError`: a weight that is not above 0, or a longer period than
    100,000 turns.
    """
    bad = {name: weight for name, weight in weights.items() if not 0 < weight < float("inf")}
    require(not bad, setting, wanted="weights above 0", got=bad, remedy="Leave out what is not wanted.")
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = sum(exact.values())
    shares = {name: weight / total for name, weight in exact.items()}
    period = lcm(*(share.denominator for share in shares.values()))
    if period > LONGEST:
        raise ConfigError(setting, wanted=f"shares that repeat within {LONGEST:,} turns", got=f"{period:,}",
                          remedy="Write them with at most four decimal places, adding up to 1.")  # fmt: skip
    return {name: int(share * period) for name, share in shares.items()}


def schedule(counts: Sequence[int]) -> list[int]:
    """Whose turn it is, for each turn of a period in which sequence i has `counts[i]` turns.

    With k sequences, W = sum of counts, shares w_i = counts_i / W and c_i(n) the turns of i among the first n,

        |c_i(n) - n w_i| <= 1 - 1 / (2k - 2) < 1    for all i and n; 0 for k = 1.

    This is the chairman assignment of Tijdeman (Discrete Mathematics 32, 1980), whose bound is the best possible for all k at
    once: at turn n, of those i with n w_i - c_i(n-1) >= 1 / (2k - 2), the one whose share would first run more than the bound
    ahead of its turns, i.e. with the least (c_i(n-1) + 1 - 1 / (2k - 2)) / w_i. At n = W all are exact, so the bound holds over
    any number of periods.
    """
    if len(counts) == 1:
        return [0] * counts[0]
    total, scale = sum(counts), 2 * len(counts) - 2
    done = [0] * len(counts)
    order: list[int] = []
    for turn in range(1, total + 1):
        due = [i for i, count in enumerate(counts) if scale * (turn * count - total * done[i]) >= total]
        chosen = min(due, key=lambda i: (Fraction(scale * (done[i] + 1) - 1, counts[i]), i))
        done[chosen] += 1
        order.append(chosen)
    return order
