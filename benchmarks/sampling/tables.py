"""Writes the tables of README.md from the results that lie beside it: python benchmarks/sampling/tables.py"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = {
    "generate": "`generate`", "trl": "TRL", "trl_continuous_batching": "TRL, continuous batching", "hf_sampler": "`HFSampler`",
}  # fmt: skip


def speed(rows: list[dict[str, Any]], unit: str) -> str:
    """Rates of every arm, and how many times faster `HFSampler` is."""
    others = [name for name in NAMES if name != "hf_sampler"]
    head = ["model", "G", *NAMES.values(), *(f"over {NAMES[name]}" for name in others)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        rates = [f"{row[name][unit]:,.0f}" for name in NAMES]
        ratios = [f"{row['hf_sampler'][unit] / row[name][unit]:.1f} x" for name in others]
        lines.append([f"`{row['model']}`", str(row["group"]), *rates, *ratios])
    return table(lines)


def company(dtypes: dict[str, dict[str, Any]]) -> str:
    """What the batch does to completions."""
    lines = [
        ["dtype", "other company", "other tokens", "log-probs that differ", "by at most, nats"],
        ["---", "---", *["---:"] * 3],
    ]
    for dtype, found in dtypes.items():
        for name, one in found.items():
            if name != "tokens":
                lines.append(
                    [dtype, name, f"{one['with_other_tokens']} of {one['completions']}", f"{one['logprobs_that_differ']:.0%}",
                     f"{one['largest_logprob_difference']:.1e}"]
                )  # fmt: skip
    return table(lines)


def rows_at_a_time(rows: list[dict[str, Any]]) -> str:
    """All rows at once, and a quarter of them."""
    lines = [["model", "G", "all rows at once", "a quarter"], ["---", *["---:"] * 3]]
    for row in rows:
        rates = [f"{row[name]['tokens_per_cpu_second']:,.0f}" for name in ("hf_sampler", "hf_sampler_quarter_of_rows")]
        lines.append([f"`{row['model']}`", str(row["group"]), *rates])
    return table(lines)


def floor(models: dict[str, Any]) -> str:
    """What no engine can avoid."""
    head = ["model", "MFLOP per token", "weights per step, MB", "GFLOP/s of a product", "tokens per second at that speed"]
    lines = [head, ["---", *["---:"] * 4]]
    for name, one in models.items():
        found = one["floor"]
        lines.append(
            [f"`{name}`", f"{found['matrix_flops_per_token'] / 1e6:.1f}", f"{found['weight_bytes_per_step'] / 1e6:.1f}",
             f"{found['measured_gflops']:.0f}", f"{found['tokens_per_second_at_that_speed']:,}"]
        )  # fmt: skip
    return table(lines)


def where(models: dict[str, Any]) -> str:
    """Shares of one thread's time."""
    labels = list(next(iter(models.values()))["where"])
    lines = [["model", *labels], ["---", *["---:"] * len(labels)]]
    lines += [[f"`{name}`", *(f"{one['where'][label]:.0%}" for label in labels)] for name, one in models.items()]
    return table(lines)


def made(result: dict[str, Any]) -> str:
    """One line: where a result comes from."""
    about = result["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number is not None)
    changed = " with changed files" if about["dirty"] else ""
    return (
        f"`{about['command']}`: commit {about['commit'][:10]}{changed}, {about['device']}, {about['cores']} cores, "
        f"{about['threads']} thread{'s' if about['threads'] > 1 else ''}, seed 0; {versions}; {about['time'][:10]}."
        + (f" {result['note']}" if "note" in result else "")
    )


def table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    files = ("beside_trl.json", "determinism.json", "results.json")
    trl, alone, run = (json.loads((HERE / name).read_text(encoding="utf-8")) for name in files)
    parts = {
        "processor": speed(trl["rows"], "tokens_per_cpu_second"), "clock": speed(trl["rows"], "tokens_per_second"),
        "speed-made": made(trl), "quarter": rows_at_a_time(run["rows"]), "floor": floor(run["models"]),
        "where": where(run["models"]), "run-made": made(run), "company": company(alone["dtypes"]), "company-made": made(alone),
    }  # fmt: skip
    page = (HERE / "README.md").read_text(encoding="utf-8")
    for name, text in parts.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(marks, lambda found, text=text: found[1] + text + "\n" + found[2], page, flags=re.DOTALL)
        assert count == 1, f"README.md has {count} places for {name}"
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
