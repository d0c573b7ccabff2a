"""Checks what a quickstart run left behind: `python tools/check_quickstart.py RUN_FOLDER`.

Everything that the README promises must be there, the export must load and sample, and held-out accuracy must have risen.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import torch

MIN_RISE = 0.15  # of one seed; the median of five is in benchmarks/quickstart


def main(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    accuracy = json.loads((folder / "summary.json").read_text())["held_out_accuracy"]
    rise = accuracy["after"] - accuracy["before"]
    assert 0.2 <= accuracy["before"] <= 0.5, f"accuracy before training is {accuracy['before']:.3f}, not between 0.2 and 0.5"
    assert rise >= MIN_RISE, f"held-out accuracy rose by {rise:.3f} only"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "checkpoints").glob("step-*.ckpt")) and list((folder / "tensorboard").glob("events*"))
    assert (folder / "config.yaml").stat().st_size > 0
    with (folder / "metrics.csv").open() as file:
        worst = max(float(row["mismatch/max_abs_nats"]) for row in csv.DictReader(file) if row.get("mismatch/max_abs_nats"))
    assert worst < 1e-4, f"sampler and scorer differ by up to {worst:.2e} nats"
    model = AutoModelForCausalLM.from_pretrained(folder / "export")
    tokenizer = AutoTokenizer.from_pretrained(folder / "export")
    prompt = tokenizer("12+34=", return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        answer = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    print(f"accuracy {accuracy['before']:.3f} -> {accuracy['after']:.3f}; the export says: {tokenizer.decode(answer[0])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
