"""DelTA's own arithmetic at D = 4096, beside the four-forward procedure: `python benchmarks/credit/run.py [--device cuda]`.

The model is a stand-in, which favours the procedure with more forward passes: a forward pass copies the hidden states of a
micro-batch and multiplies them with an LM head of `--vocabulary` rows. Arms are timed in turns, within one process; peak
memory is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from four_forward import four_forward
from torch import Tensor

from delta_lightning.credit import Delta
from delta_lightning.functional.delta import stream_coefficients
from delta_lightning.functional.sides import row_blocks
from delta_lightning.report.provenance import provenance

HERE = Path(__file__).parent
WIDTH, LENGTH, ROWS = 4096, 1280, 4  # D; padded length; responses of a micro-batch
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # lengths of responses, as shares of the padded length
UNIT = int(sum(SHARES) * LENGTH)
DOUBLINGS = 4


@dataclass
class World:
    """Responses with their hidden states: what a model would compute."""

    lengths: list[int]
    hidden_ND: Tensor
    targets_N: Tensor
    head_VD: Tensor
    mask_BS: Tensor
    advantages_B: Tensor
    seconds: float = 0.0  # in forward passes

    @classmethod
    def make(cls, tokens: int, *, vocabulary: int, device: str, padded: bool = True, offset: float = 0.0) -> World:
        shares = SHARES if padded else (1.0,) * 3
        lengths = [int(LENGTH * share) for share in shares] * (tokens // UNIT)
        lengths[-1] += tokens - sum(lengths)
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(tokens, WIDTH, generator=generator)
        hidden += offset * torch.randn(WIDTH, generator=generator)  # common to all tokens
        advantages = torch.tensor([1.2, -0.7, 0.4, -1.6, 0.0])[torch.arange(len(lengths)) % 5]
        sides = advantages.repeat_interleave(torch.tensor(lengths)).sign()
        hidden += 0.1 * sides[:, None] * torch.randn(WIDTH, generator=generator)  # what tells the sides apart
        mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
        head = torch.randn(vocabulary, WIDTH, generator=generator) * 0.03
        targets = torch.randint(vocabulary, (tokens,), generator=generator)
        return cls(lengths, *(x.to(device) for x in (hidden, targets, head, mask, advantages)))

    def forward(self, step: int = ROWS) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, log-probabilities [n] and hidden states [n, D] of their tokens, micro-batch by micro-batch."""
        start = 0
        for row in range(0, len(self.lengths), step):
            begin = clock(self.hidden_ND)
            end = start + sum(self.lengths[row : row + step])
            hidden = self.hidden_ND[start:end].clone()
            logits = hidden @ self.head_VD.T
            logprobs = torch.log_softmax(logits, -1).gather(1, self.targets_N[start:end, None])[:, 0]
            self.seconds += clock(self.hidden_ND) - begin
            yield slice(row, min(row + step, len(self.lengths))), logprobs, hidden
            start = end

    def padded(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The same as [b, S] and [b, S, D]."""
        for rows, logprobs, hidden in self.forward():
            begin = clock(hidden)
            mask = self.mask_BS[rows]
            wide, values = hidden.new_zeros(*mask.shape, WIDTH), logprobs.new_zeros(mask.shape)
            wide[mask], values[mask] = hidden, logprobs
            self.seconds += clock(hidden) - begin
            yield rows, values, wide


class View:
    """What `Delta` reads of `interfaces.StepView`: one rank's tokens, kept or computed again."""

    def __init__(self, world: World, place: str, dtype: torch.dtype = torch.float32) -> None:
        self.world, self.place, self.dtype = world, place, dtype
        self.advantages = world.advantages_B
        ids_BS = torch.zeros_like(world.mask_BS, dtype=torch.int64)
        ids_BS[world.mask_BS] = world.targets_N
        self.batch = SimpleNamespace(loss_mask_BT=world.mask_BS, token_ids_BT=ids_BS)
        self.kept: list[tuple[slice, SimpleNamespace]] = []
        for rows, logprobs, hidden in world.forward():  # the scoring pass, which every run makes
            states = hidden.to(self.dtype) if place == "kept" else None
            self.kept.append((rows, SimpleNamespace(logprobs_BT=self.spread(rows, logprobs), hidden_ND=states)))

    def spread(self, rows: slice, logprobs_N: Tensor) -> Tensor:
        mask = self.world.mask_BS[rows]
        return logprobs_N.new_zeros(mask.shape).masked_scatter(mask, logprobs_N)

    def passes(self) -> Iterator[tuple[slice, SimpleNamespace]]:
        if self.place == "kept":
            yield from self.kept
            return
        for (rows, scores), (_, _, hidden) in zip(self.kept, self.world.forward(), strict=True):
            yield rows, SimpleNamespace(logprobs_BT=scores.logprobs_BT, hidden_ND=hidden)

    def all_sum(self, value: Tensor) -> Tensor:
        return value


def clock(like: Tensor) -> float:
    if like.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def credit(view: View) -> Tensor:
    return Delta().credit(view).scale_BT  # type: ignore[arg-type]


def written_out(view: View) -> Tensor:
    """The same rules over explicit features, as proxies other than the default have them."""
    world = view.world

    def features() -> Iterator[Tensor]:
        for rows, scores in view.passes():
            weights = -torch.expm1(scores.logprobs_BT[world.mask_BS[rows]])
            for part in row_blocks(*scores.hidden_ND.shape):
                yield weights[part, None] * scores.hidden_ND[part].float()

    return stream_coefficients(features, world.advantages_B[:, None].expand(world.mask_BS.shape)[world.mask_BS])


def ours(world: World, place: str) -> Tensor:
    return credit(View(world, place))


def theirs(world: World) -> Tensor:
    return four_forward(world.padded, world.advantages_B, world.mask_BS)


TOTALS: dict[str, Callable[[World], Tensor]] = {
    "kept": lambda world: ours(world, "kept"),
    "recomputed": lambda world: ours(world, "recomputed"),
    "four_forward": theirs,
}


class Case:
    """One size: its arms, and the seconds that each took at each repeat."""

    def __init__(self, world: World) -> None:
        self.world, self.wide, self.narrow = world, View(world, "kept"), View(world, "kept", torch.bfloat16)
        target = torch.empty_like(world.hidden_ND)
        self.arms: dict[str, Callable[[], Any]] = {
            "copy": lambda: target.copy_(world.hidden_ND),
            "read": lambda: world.hidden_ND.sum(),
            "credit": lambda: credit(self.wide),
            "credit_bf16": lambda: credit(self.narrow),
            "credit_written_out": lambda: written_out(self.wide),
        } | {f"total_{name}": lambda arm=arm: arm(world) for name, arm in TOTALS.items()}
        self.times: dict[str, list[float]] = {}

    def turn(self) -> None:
        """Every arm once."""
        for name, arm in self.arms.items():
            self.world.seconds, begin = 0.0, clock(self.world.hidden_ND)
            arm()
            seconds = {name: clock(self.world.hidden_ND) - begin}
            if name.startswith("total_"):
                seconds[f"forward_{name[6:]}"] = self.world.seconds
                seconds[f"own_{name[6:]}"] = seconds[name] - self.world.seconds
            for key, value in seconds.items():
                self.times.setdefault(key, []).append(value)

    def ratio(self, over: str, under: str, scale: float = 1.0) -> float:
        """Median over repeats of the ratio within one repeat, over `scale`."""
        return median(x / y for x, y in zip(self.times[over], self.times[under], strict=True)) / scale

    def row(self) -> dict[str, Any]:
        """A copy moves each byte twice, so one reading of the cache at its speed takes half as long."""
        size = self.world.hidden_ND.numel() * 4
        row: dict[str, Any] = {name: median(values) for name, values in self.times.items()}
        for name in ("credit", "credit_written_out"):
            row[f"{name}_over_1_read"], row[f"{name}_over_4_reads"] = self.ratio(name, "copy", 0.5), self.ratio(name, "copy", 2)
        return row | {
            "copy_gb_s": 2 * size / row["copy"] / 1e9,
            "read_gb_s": size / row["read"] / 1e9,
            "credit_bf16_over_4_reads": self.ratio("credit_bf16", "copy"),  # of half the bytes
            "credit_over_4_sums": self.ratio("credit", "read", 4),
            "four_forward_over_kept": self.ratio("total_four_forward", "total_kept"),
            "four_forward_over_recomputed": self.ratio("total_four_forward", "total_recomputed"),
            "own_four_forward_over_credit": self.ratio("own_four_forward", "credit"),
        }

    def agreement(self) -> dict[str, float]:
        """Largest differences between coefficients."""
        mask, world = self.world.mask_BS, self.world
        exact = exact_coefficients(self.wide)
        got, rounded = credit(self.wide)[mask], credit(self.narrow)[mask]
        return {
            "error": float((got - exact).abs().max()),
            "error_four_forward": float((theirs(world)[mask] - exact).abs().max()),
            "difference_recomputed": float((ours(world, "recomputed")[mask] - got).abs().max()),
            "difference_bf16": float((rounded - got).abs().max()),
            "mean_difference_bf16": float((rounded - got).abs().mean()),
        }


def exact_coefficients(view: View) -> Tensor:
    """In float64 throughout, from the same float32 hidden states and log-probabilities."""
    world = view.world

    def features() -> Iterator[Tensor]:
        for rows, scores in view.passes():
            weights = -torch.expm1(scores.logprobs_BT[world.mask_BS[rows]].double())
            for part in row_blocks(*scores.hidden_ND.shape):
                yield weights[part, None] * scores.hidden_ND[part].double()

    return stream_coefficients(features, world.advantages_B[:, None].expand(world.mask_BS.shape)[world.mask_BS])


def memory(arm: str, tokens: int, vocabulary: int, device: str) -> None:
    """Prints the growth of the peak over what stood before, MiB."""
    TOTALS[arm](World.make(UNIT, vocabulary=vocabulary, device=device))  # load kernels first
    world = World.make(tokens, vocabulary=vocabulary, device=device)
    if world.hidden_ND.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        TOTALS[arm](world)
        print((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again here
    before = status("VmRSS")
    TOTALS[arm](world)
    print((status("VmHWM") - before) / 1024)


def status(field: str) -> int:
    """KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def slope(rows: list[dict[str, Any]], key: str) -> float:
    """Microseconds per token: least squares through the medians, with a constant."""
    x = torch.tensor([row["tokens"] for row in rows], dtype=torch.float64)
    y = torch.tensor([row[key] for row in rows], dtype=torch.float64)
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()) * 1e6


def main(options: argparse.Namespace) -> None:
    start = os.getloadavg()
    sizes = [UNIT << k for k in range(options.sizes)]
    kinds = [*((size, True, 0.0) for size in sizes), (sizes[-2], False, 0.0), (sizes[-2], True, 2.0)]
    shared = {"vocabulary": options.vocabulary, "device": options.device}
    cases = [Case(World.make(tokens, padded=padded, offset=offset, **shared)) for tokens, padded, offset in kinds]
    for turn in range(options.repeats + 1):
        for case in cases:
            case.turn()
            if turn == 0:  # memory that is touched for the first time is slow
                case.times = {}
        print(f"turn {turn} of {options.repeats}, load {os.getloadavg()[0]:.1f}", flush=True)
    rows = []
    for (tokens, padded, offset), case in zip(kinds, cases, strict=True):
        row = {"tokens": tokens, "padded": padded, "offset": offset, "padded_tokens": case.world.mask_BS.numel(), **case.row()}
        rows.append(row | case.agreement())
        if padded and not offset:
            for arm in TOTALS:
                command = [sys.executable, __file__, "--memory", arm, str(tokens), "--device", options.device]
                command += ["--vocabulary", str(options.vocabulary)]
                plain = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
                rows[-1][f"{arm}_mib"] = float(done.stdout)
            rows[-1]["cache_mib"] = tokens * WIDTH * 4 / 2**20
        print({key: f"{value:.3g}" for key, value in rows[-1].items()}, flush=True)
    times = [key for key in rows[0] if key.startswith(("credit", "total", "own", "forward")) and "over" not in key]
    result = {
        "provenance": provenance(seeds={"torch": 0}),
        "setting": {"width": WIDTH, "length": LENGTH, "rows": ROWS, "vocabulary": options.vocabulary, "refinements": 1,
                    "repeats": options.repeats, "device": options.device,
                    "environment": {key: os.environ[key] for key in os.environ if key.startswith(("MALLOC_", "OMP_"))},
                    "load_before": start, "load_after": os.getloadavg()},
        "microseconds_per_token": {key: slope(rows[: len(sizes)], key) for key in ("copy", "read", *times)},
        "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocabulary", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", type=int, default=DOUBLINGS, help="how many sizes, each twice the one before")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--memory", nargs=2)
    parsed = parser.parse_args()
    if parsed.memory:
        memory(parsed.memory[0], int(parsed.memory[1]), parsed.vocabulary, parsed.device)
    else:
        main(parsed)
