"""An ablation's summary as tables for a terminal and as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delta_lightning.report.table import markdown_table, text_table

Table = tuple[list[str], list[list[str]]]  # header, rows

QUANTILES_SHOWN = (0.05, 0.5, 0.95)


def coefficients_table(summary: Mapping[str, Any]) -> Table:
    """A row per assigner: its coefficients over all trained tokens, means per side, effective share, gradient norm."""
    shares = summary["quantile_shares"]
    header = ["assigner", "mean", "std", "min", *(f"{share:.0%}" for share in QUANTILES_SHOWN), "max",
              "mean A>0", "mean A<0", "effective share", "zero share", "gradient norm"]  # fmt: skip
    rows = []
    for number, label in enumerate(summary["labels"]):
        one = summary["assigners"][label]
        sides = one["coefficient"]
        every = sides["all"] or {}
        marks = [every["quantiles"][shares.index(share)] if every else None for share in QUANTILES_SHOWN]
        found = [every.get("mean"), every.get("std"), every.get("min"), *marks, every.get("max"),
                 *((sides[side] or {}).get("mean") for side in ("positive", "negative")),
                 every.get("effective_share"), every.get("zero_share")]  # fmt: skip
        rows.append([f"{number + 1} {label}", *map(_number, found), f"{one['gradient_norm']:.3g}"])
    return header, rows


def matrix_table(labels: Sequence[str], matrix: Sequence[Sequence[float | None]]) -> Table:
    """Assigners by assigners; columns carry the numbers of the rows."""
    header = ["", *(str(number + 1) for number in range(len(labels)))]
    return header, [
        [f"{number + 1} {label}", *map(_number, row)] for number, (label, row) in enumerate(zip(labels, matrix, strict=True))
    ]


def tokens_table(found: Mapping[str, Any]) -> Table:
    """Top and bottom strings of one assigner, side by side."""
    header = ["top", "mean", "count", "bottom", "mean", "count"]
    length = max(len(found["top"]), len(found["bottom"]))
    cells = [[_token(found[name], row) for row in range(length)] for name in ("top", "bottom")]
    return header, [[*top, *bottom] for top, bottom in zip(*cells, strict=True)]


def terminal(summary: Mapping[str, Any]) -> str:
    """Coefficients, rank correlations within each side, and gradient cosines."""
    labels = summary["labels"]
    parts = [
        ("coefficients of trained tokens", coefficients_table(summary)),
        ("rank correlation of coefficients, tokens with A > 0", matrix_table(labels, summary["spearman"]["positive"])),
        ("rank correlation of coefficients, tokens with A < 0", matrix_table(labels, summary["spearman"]["negative"])),
        ("cosine of policy gradients", matrix_table(labels, summary["gradient_cosine"])),
    ]
    return "\n\n".join(f"{title}\n{text_table([header, *rows])}" for title, (header, rows) in parts)


def page(summary: Mapping[str, Any]) -> str:
    """The Markdown page."""
    labels, rollouts = summary["labels"], summary["rollouts"]
    assigners = [f"{number + 1}. `{summary['assigners'][label]['is']}`" for number, label in enumerate(labels)]
    lines = [
        "# Credit assigners on the same rollouts\n",
        f"Rollout step {rollouts['step']}, seed {rollouts['seed']}: {rollouts['prompts']} prompts, "
        f"{rollouts['sequences']} answers, "
        f"{rollouts['tokens_all']} trained tokens, {rollouts['tokens_positive']} of them with A > 0, "
        f"{rollouts['tokens_negative']} with A < 0, {rollouts['tokens_zero']} with A = 0. "
        f"Weights {rollouts['weights']['sha256'][:12]}.\n",
        "\n".join(assigners) + "\n",
        "## Coefficients\n",
        "Over all trained tokens. Effective share of coefficients c: (sum c)^2 / (N sum c^2).\n",
        markdown_table(*coefficients_table(summary)),
        "## Rank correlation\n",
        "Spearman's, average ranks for ties; coefficients that agree to 20 bits are ties. `-`: one of the two is constant.\n",
    ]
    titles = {"positive": "tokens with A > 0", "negative": "tokens with A < 0", "signal": "tokens with A != 0"}
    for side, title in titles.items():
        lines += [f"### {title[0].upper()}{title[1:]}\n", markdown_table(*matrix_table(labels, summary["spearman"][side]))]
    lines += [
        "With both sides together, an assigner that weighs the sides unequally agrees with its own shuffle, and agreements of "
        "opposite sign cancel: read the sides first.\n",
        "## Cosine of policy gradients\n",
        "All parameters, whole rollout batch, at theta_old, without penalties. `-`: a gradient is 0.\n",
        markdown_table(*matrix_table(labels, summary["gradient_cosine"])),
        "## Top and bottom tokens\n",
        "Mean coefficient by string, each side by itself. Assigners that treat all strings alike are left out.\n",
    ]
    for label in labels:
        for side in ("positive", "negative"):
            found = summary["assigners"][label]["tokens"][side]
            if found["bottom"] and found["top"][0]["mean"] != found["bottom"][0]["mean"]:
                lines += [f"### {label}, {titles[side]}\n", markdown_table(*tokens_table(found))]
    return "\n".join(lines)


def _token(rows: Sequence[Mapping[str, Any]], row: int) -> list[str]:
    if row >= len(rows):
        return ["", "", ""]
    one = rows[row]
    return [f"`{one['string']!r}`", _number(one["mean"]), str(one["count"])]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
