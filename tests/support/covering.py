"""Covering arrays: few rows in which every allowed pair of values of any two factors stands together at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]


def allowed_pairs(factors: Mapping[str, Sequence[str]], allowed: Callable[[Row], bool]) -> set[tuple[str, str, str, str]]:
    """(factor, value, factor, value) of every pair that `allowed` lets through."""
    return {
        (a, x, b, y) for a, b in combinations(factors, 2) for x, y in product(factors[a], factors[b]) if allowed({a: x, b: y})
    }


def covering_array(factors: Mapping[str, Sequence[str]], allowed: Callable[[Row], bool]) -> list[Row]:
    """Rows, one value per factor, that hold every allowed pair; deterministic.

    Greedy: a row begins with a pair that is still missing, and each further factor takes the allowed value that adds most
    missing pairs, of equal ones the first: a value that takes long stands last. If no value is allowed beside the others the
    pair cannot stand in a whole row, which raises.
    """
    missing = allowed_pairs(factors, allowed)
    order = {pair: index for index, pair in enumerate(sorted(missing))}
    rows: list[Row] = []
    while missing:
        a, x, b, y = min(missing, key=order.__getitem__)
        row = {a: x, b: y}
        for factor in sorted((f for f in factors if f not in row), key=lambda name: -len(factors[name])):
            options = [value for value in factors[factor] if allowed(row | {factor: value})]
            if not options:
                raise ValueError(f"no {factor} is allowed beside {row}")
            row[factor] = max(options, key=lambda value, f=factor: len(_pairs(row | {f: value}, factors) & missing))
        rows.append({factor: row[factor] for factor in factors})
        missing -= _pairs(row, factors)
    return rows


def _pairs(row: Row, factors: Mapping[str, Sequence[str]]) -> set[tuple[str, str, str, str]]:
    return {(a, row[a], b, row[b]) for a, b in combinations([f for f in factors if f in row], 2)}
