"""FIPO's discounted sums: one loop over columns against blocks of columns. Prints a table and writes results.json.

OMP_NUM_THREADS=1 python benchmarks/weightings/run.py
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from delta_lightning.functional.future_kl import discounted_suffix_sums

DECAY = 2 ** (-1 / 32)
SHAPES = ((1, 20480), (8, 20480), (32, 20480), (32, 4096))
BLOCKS = (16, 32, 64, 128, 256)


def column_by_column(values_BT: Tensor) -> Tensor:
    """The recursion as it is written: one step per column on [B] vectors."""
    sums_BT, later_B = torch.empty_like(values_BT), values_BT.new_zeros(len(values_BT))
    for t in reversed(range(values_BT.shape[1])):
        later_B = values_BT[:, t] + DECAY * later_B
        sums_BT[:, t] = later_B
    return sums_BT


def median_ms(call: Callable[[], Tensor], repeats: int) -> float:
    """Median wall time after one warm-up call."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def main() -> None:
    """All shapes."""
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        values_BT = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        error = float((column_by_column(values_BT) - discounted_suffix_sums(values_BT, decay=DECAY)).abs().max())
        row: dict[str, object] = {"rows": shape[0], "columns": shape[1], "largest_difference": error}
        row["loop_ms"] = median_ms(lambda v=values_BT: column_by_column(v), 5)  # type: ignore[misc]
        for block in BLOCKS:
            row[f"block_{block}_ms"] = median_ms(
                lambda v=values_BT, k=block: discounted_suffix_sums(v, decay=DECAY, block=k), 25  # type: ignore[misc]
            )  # fmt: skip
        rows.append(row)
        print({name: f"{value:.3g}" if isinstance(value, float) else value for name, value in row.items()})
    machine = {"torch": torch.__version__, "threads": 1, "machine": platform.machine(), "dtype": "float64", "repeats": 25}
    Path(__file__).with_name("results.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
