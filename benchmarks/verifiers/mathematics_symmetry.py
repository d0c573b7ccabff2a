"""Whether equality of answers is symmetric and transitive, counted on pairs and triples.

    DELTA_DATA=FOLDER python benchmarks/verifiers/mathematics_symmetry.py

Pairs: random pairs of references of MATH-500 and the competitions; each reference with another spelling of itself; the pairs
decided by hand in the tests. Triples: three spellings of one reference, and pairs of the table that share a reference.
"""

from __future__ import annotations

import os
import random
from itertools import combinations
from pathlib import Path

from mathematics import references, respelled

from delta_lightning.verifiers.mathematics.comparison import TooHardError
from delta_lightning.verifiers.mathematics.staged import Staged

TABLE = Path(__file__).parents[2] / "tests" / "verifiers" / "mathematics.txt"
PART = Staged()


def same(first: str, second: str) -> bool | None:
    try:
        return PART.same(first, second)
    except TooHardError:
        return None


def flips(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs that are equal in one direction only."""
    return [(first, second) for first, second in pairs if (same(first, second) is True) != (same(second, first) is True)]


def main() -> None:
    draw = random.Random(5)
    golds = references(Path(os.environ["DELTA_DATA"]))
    lines = [line[2:].split(" <> ") for line in TABLE.read_text(encoding="utf-8").splitlines() if line[:2] in ("= ", "x ")]
    sets = {
        "random pairs": [(draw.choice(golds), draw.choice(golds)) for _ in range(1000)],
        "two spellings": [(gold, respelled(gold)) for gold in golds],
        "decided by hand": [(first, second) for first, second in lines],
    }
    for name, pairs in sets.items():
        found = flips(pairs)
        print(f"{name}: {len(found)} of {len(pairs)} pairs are equal in one direction only", found[:60])
    groups: dict[str, set[str]] = {}
    for gold, answer in lines:
        if same(gold, answer):
            groups.setdefault(gold, {gold}).add(answer)
    triples = [triple for group in groups.values() for triple in combinations(sorted(group), 3)]
    triples += [(gold, respelled(gold), gold.replace(" ", "")) for gold in golds]
    broken = [t for t in triples if same(t[0], t[1]) and same(t[1], t[2]) and same(t[0], t[2]) is not True]
    print(f"triples: {len(broken)} of {len(triples)} are equal pairwise in a chain but not from end to end", broken[:40])


if __name__ == "__main__":
    main()
