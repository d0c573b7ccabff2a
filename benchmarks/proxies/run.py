"""How well each proxy's margins rank tokens against the margins of true gradients; writes results.json, README.md, ranks.png.

    OMP_NUM_THREADS=1 python benchmarks/proxies/run.py            # trains tiny models, then measures 30 checkpoints
    python benchmarks/proxies/run.py --page                       # the page and the picture again, from results.json

What was recorded or measured already in `--work` is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.proxies.measure import measure  # noqa: E402
from benchmarks.proxies.page import draw, page  # noqa: E402
from benchmarks.proxies.record import load, record  # noqa: E402

from delta_lightning.models.backbone import LoadContext  # noqa: E402
from delta_lightning.models.tiny import Tiny  # noqa: E402
from delta_lightning.report import provenance  # noqa: E402

CONFIG, CONTEXT, TEMPERATURE = "configs/quickstart.yaml", 128, 1.0
STEPS = [0, 5, 20]
RANDOM, SHORT = "random weights", "after a short warm start"
SHORT_TARGET = ("--model.backbone.warm_start.target=0.03",)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--families", nargs="+", default=["qwen3", "olmo3"])
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "delta_lightning_proxies")
    arguments.add_argument("--page", action="store_true", help="only write the page and the picture again")
    options = arguments.parse_args()
    out = HERE / "results.json"
    if not options.page:
        torch.set_num_threads(1)
        rows = []
        for seed in options.seeds:
            for family in options.families:
                folder = options.work / f"{family}-{seed}"
                record(folder, family=family, seed=seed, steps=STEPS, config=CONFIG)
                record(folder / SHORT, family=family, seed=seed, steps=[0], config=CONFIG, more=SHORT_TARGET)
                for checkpoint in (RANDOM, SHORT, *STEPS):
                    rows.append(one(folder, family, seed, checkpoint))
        origin = provenance(seeds={f"run {seed}": seed for seed in options.seeds})
        lines = ",\n".join(json.dumps(rounded(row)) for row in rows)
        text = f'{{"rows": [\n{lines}\n], "provenance": {json.dumps(origin)}}}\n'
        out.write_text(text, encoding="utf-8")
    result = json.loads(out.read_text(encoding="utf-8"))
    (HERE / "README.md").write_text(page(result), encoding="utf-8")
    draw(result, HERE / "ranks.png")


def rounded(value: Any) -> Any:
    """Floats with five significant digits, at any depth."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def one(folder: Path, family: str, seed: int, checkpoint: str | int) -> dict[str, Any]:
    """One checkpoint. Random weights score the rollouts of step 0: their own answers earn nothing, so they have no sides."""
    kept = folder / f"measured-{checkpoint}.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    names = {RANDOM: "step-0.pt", SHORT: f"{SHORT}/step-0.pt"}
    step = load(folder / names.get(str(checkpoint), f"step-{checkpoint}.pt"))
    model = Tiny(family=family, context=CONTEXT, seed=seed).load(LoadContext(seed=seed))  # type: ignore[arg-type]
    if checkpoint != RANDOM:
        model.load_state_dict(step.weights)
    start = time.perf_counter()
    found = measure(model, step, temperature=TEMPERATURE, seed=seed)
    name = {RANDOM: RANDOM, SHORT: SHORT, 0: "after the warm start"}.get(checkpoint, f"after {checkpoint} steps")
    row = {"family": family, "seed": seed, "checkpoint": name, "seconds": time.perf_counter() - start} | found
    kept.write_text(json.dumps(row), encoding="utf-8")
    print(f"{family}, seed {seed}, {name}: {row['seconds']:.0f} s", flush=True)
    return row


if __name__ == "__main__":
    main()
