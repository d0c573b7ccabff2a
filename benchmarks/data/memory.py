"""Main memory of a run's data by the number of rows: `Table`, which reads everything, beside `OnDisk`.

    python benchmarks/data/memory.py --rows 10000 100000 1000000

A JSON Lines file of made-up questions of about 1 kB is written into a temporary folder. For each source a process of its own
reads and checks it as a run does, and draws rollout steps of 128 prompts over the whole order. Printed, and written to --out:
MiB of anonymous memory (RssAnon: what the process holds; pages of mapped files can be dropped by the system) above that before
the data, and seconds until the first step's prompts, at the first time and again with the Arrow files there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEP = 128


def anonymous_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def write(path: Path, first: int, last: int) -> None:
    filler = "a line of a question that goes on for a while; " * 20
    with path.open("w", encoding="utf-8") as file:
        for row in range(first, last):
            file.write(json.dumps({"question": f"{row}: {filler}What is {row} + {row}?", "answer": str(2 * row)}) + "\n")


def measure(source: str, folder: Path, steps: int) -> dict[str, float]:
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    import datasets

    from delta_lightning.data import OnDisk, Table
    from delta_lightning.models.tokenizer import byte_tokenizer
    from delta_lightning.trainer.datamodule import PromptData
    from delta_lightning.trainer.progress import Progress
    from delta_lightning.verifiers.numeric import NumericVerifier

    datasets.disable_progress_bars()
    table = Table(path=str(folder / "train.jsonl"), held_out_file="test.jsonl")
    data = PromptData(table if source == "Table" else OnDisk(table=table), max_prompt_tokens=4096)
    before, began = anonymous_mib(), time.perf_counter()
    data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
    drawn, peak = 0, anonymous_mib()
    for step in range(steps):
        stream = data.stream(drawn, STEP, seed=0)
        stream.take(STEP)
        if step == 0:
            first = time.perf_counter() - began
        drawn, peak = stream.drawn, max(peak, anonymous_mib())
    data.fingerprint()
    return {"mib": max(peak, anonymous_mib()) - before, "seconds_to_first_step": first, "prompts_drawn": drawn}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--table-up-to", type=int, default=100_000, help="Table is not tried with more rows")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]), options.steps)))
        return
    results = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "train.jsonl", 0, rows)
            write(folder / "test.jsonl", rows, rows + 300)
            megabytes = (folder / "train.jsonl").stat().st_size / 1e6
            for source, again in (("Table", False), ("OnDisk", False), ("OnDisk", True)):
                if source == "Table" and rows > options.table_up_to:
                    continue
                command = [sys.executable, __file__, f"--steps={options.steps}", "--one", source, name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                result = {"source": source, "rows": rows, "file_mb": megabytes, "arrow_files_there": again}
                results.append(result | json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(results[-1]), flush=True)
    if options.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        about = {"commit": commit, "machine": platform.platform(), "seed": 0, "steps": options.steps}
        options.out.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
