"""How far two rankings of tokens agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.agreement import spearman

TOP = 0.2
UNSURE = 0.9
BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What agreement is measured over, [N] bool each: which side, and whether the policy was unsure (p below `UNSURE`)."""

    positive_N: Tensor
    unsure_N: Tensor

    def cells(self) -> dict[str, Tensor]:
        """Named subsets."""
        sides = {"A>0": self.positive_N, "A<0": ~self.positive_N}
        return sides | {f"{side}, p<{UNSURE}": which & self.unsure_N for side, which in sides.items()}


def agreement(truth: Tensor, other: Tensor, tokens: Tokens) -> dict[str, float | None]:
    """Of own margins, by name. None where it is not defined."""
    found = {"spearman": spearman(truth, other), "pearson": pearson(truth, other), "kendall": kendall(truth, other)}
    for name, which in tokens.cells().items():
        found[f"spearman {name}"] = spearman(truth[which], other[which])
        found[f"pearson {name}"] = pearson(truth[which], other[which])
    sign = float(((truth > 0) == (other > 0)).double().mean())
    return found | {"top 20 %": top_shared(truth, other), "sign": sign}


def coefficient_agreement(truth: Tensor, other: Tensor, tokens: Tokens) -> dict[str, float | None]:
    """Of DelTA's final coefficients, by name; `distance` is the mean absolute difference."""
    found = {"coefficient spearman": spearman(truth, other), "coefficient pearson": pearson(truth, other)}
    for name, which in tokens.cells().items():
        found[f"coefficient spearman {name}"] = spearman(truth[which], other[which])
        found[f"coefficient pearson {name}"] = pearson(truth[which], other[which])
    return found | {"coefficient distance": float((truth - other).abs().mean())}


def pearson(a_N: Tensor, b_N: Tensor) -> float | None:
    """Pearson's correlation; None where either is constant or empty."""
    if len(a_N) < 2:
        return None
    x, y = a_N - a_N.mean(), b_N - b_N.mean()
    norm = float(x.norm() * y.norm())
    return None if norm == 0 else float(x @ y) / norm


def top_shared(truth: Tensor, other: Tensor, share: float = TOP) -> float:
    """Share of the top `share` of tokens by `truth` that are in the top by `other`; about `share` for unrelated rankings."""
    count = max(1, round(share * len(truth)))
    first = set(truth.argsort(descending=True, stable=True)[:count].tolist())
    return len(first & set(other.argsort(descending=True, stable=True)[:count].tolist())) / count


def kendall(a_N: Tensor, b_N: Tensor) -> float | None:
    """Kendall's tau-b, which corrects for ties; all pairs, block by block."""
    score = ties_a = ties_b = 0.0
    for start in range(0, len(a_N), BLOCK):
        part = slice(start, start + BLOCK)
        sign_a, sign_b = (torch.sign(x[part, None] - x[None]).to(torch.int8) for x in (a_N, b_N))
        score += float((sign_a * sign_b).sum(dtype=torch.int64))
        ties_a += float((sign_a != 0).sum())
        ties_b += float((sign_b != 0).sum())
    return None if ties_a * ties_b == 0 else score / (ties_a * ties_b) ** 0.5


def summarised(rows: list[Mapping[str, float | None]]) -> dict[str, dict[str, float] | None]:
    """Mean, least and largest of each measure over rows."""
    out: dict[str, dict[str, float] | None] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        out[name] = {"mean": sum(known) / len(known), "min": min(known), "max": max(known)} if len(known) == len(rows) else None
    return out
