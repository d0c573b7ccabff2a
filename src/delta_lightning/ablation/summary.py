"""What an ablation found, as plain values for a JSON file: nothing in it depends on the time or the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from delta_lightning.ablation.replay import Replay
from delta_lightning.errors import require
from delta_lightning.functional.agreement import (
    QUANTILES,
    cosines,
    effective_share,
    histogram,
    quantiles,
    rank_correlations,
    settled,
)

FORMAT = 1
DIGITS = 9  # significant digits of every number in the file
SIDES = ("all", "positive", "negative", "zero")
SPREAD = (0.001, 0.999)  # quantiles of all assigners together between which the histogram's bins lie


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of an ablation is written.

    Args:
        bins: bins of the histograms.
        top: strings in each list of top and bottom tokens.
        min_count: fewest occurrences with which a string enters these lists.
        answers: answers in the picture, half of them with positive advantage as far as there are any.
        answer_tokens: tokens of each that are shown, from its start.
    """

    bins: int = 60
    top: int = 10
    min_count: int = 5
    answers: int = 6
    answer_tokens: int = 1000

    def __post_init__(self) -> None:
        for name in ("bins", "top", "min_count", "answers", "answer_tokens"):
            value = getattr(self, name)
            require(value >= 1, f"sizes.{name}", wanted="at least 1", got=value, remedy="Raise it.")


def summarise(
    replayed: Replay,
    gram_KK: Tensor,
    *,
    strings: Callable[[int], str],
    sizes: Sizes,
    rollouts: Mapping[str, Any],
    described: Mapping[str, str],
) -> dict[str, Any]:
    """Plain values for `report.json`.

    Args:
        replayed: tokens and coefficients. gram_KK: inner products of gradients, in the order of `replayed.coefficients`.
        strings: token id -> what it is as text.
        rollouts: facts about the recording, plain values. described: what each assigner is, with all its fields, by label.
    """
    labels = list(replayed.coefficients)
    edges = _edges(replayed, sizes.bins)
    sides = {name: replayed.side(name) for name in (*SIDES, "signal")}
    assigners = {
        label: _assigner(replayed, label, sides, edges, strings, sizes)
        | {"is": described[label], "gradient_norm": max(0.0, float(gram_KK[k, k])) ** 0.5}
        for k, label in enumerate(labels)
    }
    values = [replayed.coefficients[label] for label in labels]
    report = {
        "format": FORMAT,
        "rollouts": dict(rollouts) | {f"tokens_{name}": int(chosen.sum()) for name, chosen in sides.items()},
        "labels": labels,
        "quantile_shares": list(QUANTILES),
        "histogram_edges": edges,
        "assigners": assigners,
        "spearman": {
            name: rank_correlations([settled(value_N[sides[name]]) for value_N in values])
            for name in ("signal", "positive", "negative")
        },
        "gradient_cosine": cosines(gram_KK),
    }
    rounded: dict[str, Any] = _rounded(report)
    return rounded


def _assigner(
    replayed: Replay,
    label: str,
    sides: Mapping[str, Tensor],
    edges: list[float],
    strings: Callable[[int], str],
    sizes: Sizes,
) -> dict[str, Any]:
    values_N = replayed.coefficients[label]
    found: dict[str, Any] = {
        "coefficient": {name: _distribution(values_N[sides[name]], edges) for name in SIDES},
        "tokens": {
            name: _extremes(by_string(replayed.token_N[sides[name]], settled(values_N[sides[name]]), strings), sizes)
            for name in ("signal", "positive", "negative")
        },
    }
    if label in replayed.shifts:
        shift_N = replayed.shifts[label]
        reached = (shift_N != 0) & sides["zero"]
        found["shift"] = {
            "mean_abs": float(shift_N.abs().mean()) if len(shift_N) else None,
            "tokens_with_signal_only_by_shift": int(reached.sum()),
        }
    return found


def _distribution(values_N: Tensor, edges: list[float]) -> dict[str, Any] | None:
    """None for no tokens."""
    if not len(values_N):
        return None
    return {
        "tokens": len(values_N),
        "mean": float(values_N.mean()),
        "std": float(values_N.std(correction=0)),
        "min": float(values_N.min()),
        "max": float(values_N.max()),
        "quantiles": quantiles(values_N),
        "effective_share": effective_share(values_N),
        "zero_share": float((values_N == 0).double().mean()),
        "negative_share": float((values_N < 0).double().mean()),
        "histogram": histogram(values_N, edges),
        "below_histogram": int((values_N < edges[0]).sum()),
        "above_histogram": int((values_N > edges[-1]).sum()),
    }


def _edges(replayed: Replay, bins: int) -> list[float]:
    """The same bins for all assigners, so that their histograms can be laid over each other."""
    pooled = torch.cat(list(replayed.coefficients.values()))
    low, high = quantiles(pooled, SPREAD) if len(pooled) else (1.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return [float(f"{low + (high - low) * k / bins:.{DIGITS}g}") for k in range(bins + 1)]


def by_string(token_N: Tensor, values_N: Tensor, strings: Callable[[int], str]) -> list[tuple[str, float, int]]:
    """(string, mean, count) of the values of all tokens that read the same, highest mean first; ties by count, then string."""
    ids_U, inverse_N, counts_U = torch.unique(token_N, sorted=True, return_inverse=True, return_counts=True)
    sums_U = torch.zeros(len(ids_U), dtype=torch.float64).index_add_(0, inverse_N, values_N)
    totals: dict[str, tuple[float, int]] = {}
    for token, total, count in zip(ids_U.tolist(), sums_U.tolist(), counts_U.tolist(), strict=True):
        before, seen = totals.get(strings(token), (0.0, 0))
        totals[strings(token)] = (before + total, seen + count)
    means = [(text, total / count, count) for text, (total, count) in totals.items()]
    return sorted(means, key=lambda one: (-one[1], -one[2], one[0]))


def _extremes(ordered: Sequence[tuple[str, float, int]], sizes: Sizes) -> dict[str, Any]:
    """The highest and the lowest means of strings that occur often enough; no string is in both lists."""
    often = [one for one in ordered if one[2] >= sizes.min_count]
    size = min(sizes.top, (len(often) + 1) // 2)

    def rows(chosen: Sequence[tuple[str, float, int]]) -> list[dict[str, Any]]:
        return [{"string": text, "mean": mean, "count": count} for text, mean, count in chosen]

    return {"strings": len(often), "top": rows(often[:size]), "bottom": rows(often[size:][-sizes.top :][::-1])}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
