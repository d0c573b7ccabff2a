"""Peak bytes of live tensors beside what `delta-lightning plan` says: head, layouts, cache modes, activations.

    python benchmarks/memory/run.py [head layouts cache activations]

Every case is one rollout step of the trainer's own code on a small random model on the CPU, float32, metered by
`delta_lightning.planning.meter`. `plan` is the plan of that phase, made without weights; slopes are least squares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from delta_lightning.credit import Uniform  # noqa: E402
from delta_lightning.models import Packed, Padded  # noqa: E402
from delta_lightning.models.backbone import LoadContext  # noqa: E402
from delta_lightning.models.scorer import Scorer  # noqa: E402
from delta_lightning.planning.dry import DryModel, Pass  # noqa: E402
from delta_lightning.report.provenance import provenance  # noqa: E402
from delta_lightning.trainer.cache import HiddenCache  # noqa: E402
from support.planned import Case, Sized, measured, metered  # noqa: E402

Row = dict[str, Any]
SHALLOW = Sized(hidden_size=64, layers=1, heads=2, kv_heads=2, intermediate_size=128, context=8192, tie_embeddings=False)
DEEP = Sized(hidden_size=128, layers=8, heads=4, kv_heads=2, intermediate_size=384, vocabulary=2000, context=8192)


def planned(case: Case) -> dict[str, int]:
    plan = case.planned()
    memory = plan.memory(plan.sizes(worst=False))
    return {phase.name: phase.bytes for phase in memory.phases}


def head() -> list[Row]:
    """The update's peak, body of one layer, against trained tokens and vocabulary: in chunks, and with whole logits."""
    rows: list[Row] = []
    for vocabulary in (32_000, 151_936):
        for tokens in (256, 512, 1024):
            backbone = replace(SHALLOW, vocabulary=vocabulary)
            chunked = one_update(backbone, [8 + tokens // 2] * 2, Padded())
            for name, values in (("chunked", chunked), ("plain", {"measured": plain(backbone, tokens), "plan": None})):
                rows.append({"head": name, "vocabulary": vocabulary, "tokens": tokens, **values})
                print(rows[-1], flush=True)
    return rows


def plain(backbone: Sized, tokens: int) -> int:
    """Forward and backward with whole logits, as `transformers` gives them."""
    model = backbone.load(LoadContext())
    ids = torch.zeros(2, 8 + tokens // 2, dtype=torch.int64)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with metered(model, *(p.grad for p in model.parameters())) as meter:
        logits = model(input_ids=ids, use_cache=False).logits[:, 7:-1].float()
        torch.log_softmax(logits, -1).gather(-1, ids[:, 8:, None]).sum().backward()
    return meter.peak


def layouts() -> list[Row]:
    """One micro-batch's update against its tokens, lengths of 256 (1 - spread) to 256 (1 + spread): padded, or packed."""
    rows = []
    for spread in (0.0, 0.9):
        for count in (4, 8):
            lengths = [round(256 * (1 + spread * (2 * k / (count - 1) - 1))) for k in range(count)]
            for layout in (Padded(), Packed()):
                rows.append({"layout": type(layout).__name__, "spread": spread, "tokens": sum(lengths),
                             "positions": layout.cost(lengths),
                             **one_update(replace(DEEP, layers=4), lengths, layout)})  # fmt: skip
                print(rows[-1], flush=True)
    return rows


def one_update(backbone: Sized, lengths: Sequence[int], layout: Any) -> Row:
    """Forward and backward of one micro-batch, gradients of another being there."""
    case = Case(backbone=backbone, layout=layout, prompts=len(lengths), completions=1, prompt_tokens=8,
                completion_tokens=max(lengths) - 8, micro=1)  # fmt: skip
    batch = case.batch()
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    batch = replace(batch, attention_mask_BT=real, loss_mask_BT=batch.loss_mask_BT & real)
    model = backbone.load(LoadContext())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with metered(model, batch, *(p.grad for p in model.parameters())) as meter:
        Scorer(model=model, layout=layout).score(batch, frozenset()).logprobs_BT.sum().backward()
    packed, trained = isinstance(layout, Packed), int(batch.loss_mask_BT.sum())
    one = Pass(rows=1 if packed else len(lengths), columns=sum(lengths) if packed else max(lengths), trained=trained,
               packed=packed)  # fmt: skip
    dry = DryModel(backbone.meta(), dtype=torch.float32, activation_checkpointing=False, head_budget_bytes=1 << 26)
    peaks, unmasked = dry.update(one, accumulating=True), dry.update(replace(one, packed=False), accumulating=True)
    return {"measured": meter.peak, "plan": max(peaks.forward, peaks.backward),
            "plan without a mask": max(unmasked.forward, unmasked.backward)}  # fmt: skip


def cache() -> list[Row]:
    """Scoring and credit (DelTA) against tokens, with hidden states beside the model, in main memory, or nowhere."""
    places = {"device": HiddenCache(), "host": HiddenCache(device_gib=0), "recomputed": HiddenCache(device_gib=0, host_gib=0)}
    rows = []
    for name, budgets in places.items():
        for tokens in (32, 64, 128):
            case = Case(backbone=replace(DEEP, hidden_size=256, layers=2), prompts=8, completions=8, micro=16, cache=budgets,
                        completion_tokens=tokens)  # fmt: skip
            seen, plan = measured(case), case.planned()
            memory = plan.memory(plan.sizes(worst=False))
            phases = {phase.name: phase.bytes for phase in memory.phases}
            host = memory.host.get("hidden states", 0)  # on a CPU both are main memory: the meter sees them together
            rows.append({"cache": name, "tokens": 64 * tokens, "measured": max(seen["scoring"], seen["credit"]),
                         "plan": max(phases["scoring"], phases["credit"]) + host, "of which in main memory": host})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def activations() -> list[Row]:
    """An update's peak beside gradients against the length of two sequences, with and without activation checkpointing."""
    rows = []
    for recompute in (False, True):
        for length in (256, 512, 1024, 2048):
            case = Case(backbone=DEEP, recompute=recompute, prompts=2, completions=2, prompt_tokens=8,
                        completion_tokens=length - 8, credit=Uniform())  # fmt: skip
            there = 4 * case.planned().weights.trained_count  # gradients of the first micro-batch, float32
            rows.append({"recomputed": recompute, "tokens": length, "measured": measured(case)["update"] - there,
                         "plan": planned(case)["update"] - there})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


STUDIES: dict[str, tuple[Callable[[], list[Row]], str, tuple[str, ...]]] = {
    "head": (head, "tokens", ("head", "vocabulary")),
    "layouts": (layouts, "tokens", ("layout", "spread")),
    "cache": (cache, "tokens", ("cache",)),
    "activations": (activations, "tokens", ("recomputed",)),
}


def slopes(rows: Sequence[Row], over: str, by: Sequence[str]) -> list[Row]:
    """Bytes per unit of `over`, measured and planned, of the rows that are alike in `by`."""
    found = []
    for key in dict.fromkeys(tuple(row[name] for name in by) for row in rows):
        alike = [row for row in rows if tuple(row[name] for name in by) == key]
        one: Row = dict(zip(by, key, strict=True))
        for kind in ("measured", "plan"):
            one[kind] = None if alike[0][kind] is None else round(_slope([(row[over], row[kind]) for row in alike]), 1)
        one["ratio"] = None if one["plan"] is None else round(one["plan"] / one["measured"], 4)
        found.append(one)
    return found


def _slope(points: Sequence[tuple[float, float]]) -> float:
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=list(STUDIES))
    for name in parser.parse_args().studies:
        run, over, by = STUDIES[name]
        rows = run()
        found = {"provenance": provenance(seeds={"torch": 0}), "over": over, "rows": rows, "slopes": slopes(rows, over, by)}
        (HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["slopes"], indent=1), flush=True)


if __name__ == "__main__":
    main()
