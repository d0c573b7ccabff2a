"""Seconds, tokens per second, MFU and peak memory of the trainer's own phases on one device, with DelTA and without.

Random weights at published shapes, and rollouts of random tokens, every sequence equally long: nothing is sampled, downloaded
or verified. What runs is the trainer's own code: `score_batch`, `credited`, `micro_batch_loss`, clipping and AdamW, on a model
under `fsdp2` on one device, which holds float32 weights (bfloat16 above 4 B parameters) and computes in bfloat16.

    python benchmarks/gpu/run.py                                  # all shapes; writes results.json and results.md here
    python benchmarks/gpu/run.py --models Qwen3-0.6B-Base --tokens 16384
    python benchmarks/gpu/run.py --small --out FOLDER             # a tiny model on the CPU, in seconds: shows that it runs

Phases are timed between two synchronisations of the device; the first turns are left out, and medians are given. A turn is one
rollout step with one update. MFU is model FLOPs over what the device could do in that time: one forward pass to score, three
for an update, recomputation not counted, attention without its masked half (`delta_lightning.planning.flops` has the formulas).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta, Uniform
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.architecture import model_config, read_architecture
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.packed import Packed
from delta_lightning.models.padded import Padded
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import Sharding
from delta_lightning.models.tiny import Tiny
from delta_lightning.planning.flops import Shape, body_flops, head_flops, update_flops
from delta_lightning.planning.machine import DEVICES
from delta_lightning.report.provenance import provenance
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.buffer import Buffer, totals_of
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools
from delta_lightning.trainer.step import Parts, Plan, credited, micro_batch_loss, score_batch
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.types import RolloutBatch, SamplingParams

HERE = Path(__file__).parent
ARCHITECTURES = HERE.parents[1] / "configs" / "models"
MODELS = ("Qwen3-0.6B-Base", "Qwen3-1.7B-Base", "Qwen3-8B-Base")
SMALL = "tiny"
ARMS: dict[str, CreditAssigner] = {"delta": Delta(), "uniform": Uniform()}
PHASES = ("score", "credit", "update")
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and one length.

    Attributes:
        model: name of its architecture. tokens: of each sequence. sequences: of the rollout step and of its one update.
        rows: of a micro-batch. weights: dtype of weights, gradients and moments; the computation is in bfloat16 on GPUs.
        attention: kernel. checkpointing: layers run again in the backward pass.
    """

    model: str
    tokens: int
    sequences: int
    rows: int
    weights: str
    attention: str
    checkpointing: bool

    @property
    def layout(self) -> RowLayout:
        """Rows are equally long, so that nothing is padded; the kernel of variable length wants them packed."""
        return Packed() if self.attention.startswith("flash") else Padded()


def main(arguments: list[str] | None = None) -> Path:
    """Runs every case that was asked for; gives the file that the results were written to."""
    options = parsed(arguments)
    device = torch.device("cpu" if options.small or not torch.cuda.is_available() else "cuda")
    peak = options.peak_tflops * 1e12 if options.peak_tflops else peak_of(device)
    rows: list[dict[str, Any]] = []
    with one_rank(device):
        for case in cases(options, device):
            print(f"{case.model}, {case.tokens} tokens, {case.attention}, {case.weights} weights", flush=True)
            rows.append(measured(case, device, peak, options))
            print(json.dumps(rows[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "provenance": provenance(seeds={"torch": SEED}, packages=("flash-attn",)), "peak_tflops": peak and peak / 1e12,
        "warm_up": options.warm_up, "repeats": options.repeats, "rows": rows,
    }  # fmt: skip
    file: Path = options.out / "results.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "results.md").write_text(page(result))
    return file


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Phases of the trainer on one device, with DelTA and without.")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--tokens", nargs="+", type=int, default=(4096, 16384))
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--micro-tokens", type=int, default=16384, help="of a micro-batch, whole rows, at least one")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), help="default: bfloat16 above 4 B parameters")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep activations instead of computing them again")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bfloat16, dense; known for " + ", ".join(DEVICES))
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    if options.small:
        options.models, options.tokens, options.micro_tokens, options.weights = (SMALL,), (32, 64), 128, "float32"
        options.warm_up, options.repeats = 1, 2
    return options


def cases(options: argparse.Namespace, device: torch.device) -> Iterator[Case]:
    attention = "flash_attention_2" if device.type == "cuda" and find_spec("flash_attn") else "sdpa"
    for model in options.models:
        for tokens in options.tokens:
            yield Case(
                model=model, tokens=tokens, sequences=options.sequences, attention=attention,
                rows=min(options.sequences, max(1, options.micro_tokens // tokens)),
                weights=options.weights or ("bfloat16" if parameters_of(model) > 4e9 else "float32"),
                checkpointing=not options.no_checkpointing,
            )  # fmt: skip


def config_of(model: str) -> Any:
    if model == SMALL:
        return Tiny(hidden_size=64, layers=2, context=128, seed=SEED).config()
    return model_config(read_architecture(ARCHITECTURES / f"{model}.json"), what=model)


def parameters_of(model: str) -> int:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config_of(model))
    return sum(parameter.numel() for parameter in built.parameters())


@contextmanager
def one_rank(device: torch.device) -> Iterator[None]:
    """A world of one rank, as sharding wants it."""
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def peak_of(device: torch.device) -> float | None:
    """Dense bfloat16 FLOPs per second of a known GPU."""
    name = torch.cuda.get_device_name(device).lower() if device.type == "cuda" else ""
    return next((flops for known, (flops, _) in DEVICES.items() if known in name.replace(" ", "")), None)


# One case ------------------------------------------------------------------------------------------------------------------


class Trainer:
    """The policy, its optimiser and the rollouts of one case, on one device."""

    def __init__(self, case: Case, device: torch.device) -> None:
        from transformers import AutoModelForCausalLM

        self.case, self.device = case, device
        torch.manual_seed(SEED)
        config = config_of(case.model)
        with device:
            policy = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, case.weights), attn_implementation=case.attention
            ).eval()
        self.shape = Shape.of(policy)
        mesh = init_device_mesh(device.type, (1,))
        compute = torch.bfloat16 if device.type == "cuda" else None
        self.policy = Sharding(mesh=mesh, compute_dtype=compute, reduce_dtype=torch.float32).apply(policy)
        if case.checkpointing:
            recompute_layers(self.policy)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-6, weight_decay=0.1, fused=device.type == "cuda")
        self.scorer = Scorer(model=self.policy, layout=case.layout)
        self.micro = [slice(row, min(row + case.rows, case.sequences)) for row in range(0, case.sequences, case.rows)]
        self.plan = Plan(
            cut=Cut(num_groups=2, updates=1, micro=len(self.micro)), completions=case.sequences // 2,
            sampling=SamplingParams(max_new_tokens=case.tokens), cache=HiddenCache(), seed=SEED,
        )  # fmt: skip
        nobody: Any = None
        self.tools = RolloutTools(
            session=nobody, judge=nobody, policy=VerdictPolicy(), ranks=Ranks.current(), clock=PhaseClock(), progress=Progress()
        )
        self.batch = rollouts(case, config.vocab_size).to(device)

    def turn(self, arm: str) -> Iterator[str]:
        """One rollout step with one update; stops after each phase and names it."""
        parts, book = parts_with(ARMS[arm]), MetricBook()
        scored = score_batch(
            0, self.batch, self.micro, parts, self.plan, self.scorer, self.tools, book, needs=parts.rollout_needs()
        )
        yield "score"
        experience = credited(scored, parts.credit)
        yield "credit"
        totals = totals_of(experience, self.micro, per_update=len(self.micro), ranks=self.tools.ranks)
        buffer = Buffer(step=0, experience=experience, micro=self.micro, totals=totals)
        for index in range(len(self.micro)):
            one = buffer.micro_batch(index)
            loss, _ = micro_batch_loss(one.experience, one.totals, parts, self.scorer)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        yield "update"

    def flops(self) -> dict[str, int]:
        """Model FLOPs of each phase that has a forward pass."""
        lengths = [self.case.tokens] * self.case.sequences
        trained = int(self.batch.loss_mask_BT.sum())
        update = update_flops(self.shape, lengths, trained, activation_checkpointing=self.case.checkpointing)
        return {"score": body_flops(self.shape, lengths) + head_flops(self.shape, trained), "update": update.model}


def parts_with(credit: CreditAssigner) -> Parts:
    return Parts(
        shaping=(), filters=(), advantage=GroupStandardised(), correction=NoCorrection(), credit=credit, weighting=Constant(),
        loss=ClippedSurrogate(), penalties=(), reduction=TokenMean(),
    )  # fmt: skip


def rollouts(case: Case, vocabulary: int) -> RolloutBatch:
    """Two groups of random sequences, right and wrong in turn; all tokens but the first two are trained."""
    batch = make_batch(
        [case.tokens - 2] * case.sequences, rewards=[float(row % 2) for row in range(case.sequences)],
        groups=[row * 2 // case.sequences for row in range(case.sequences)], pad=0, seed=SEED,
    )  # fmt: skip
    tokens = torch.randint(vocabulary, batch.token_ids_BT.shape, generator=torch.Generator().manual_seed(SEED))
    return replace(batch, token_ids_BT=tokens, token_weights_BT=None)


def measured(case: Case, device: torch.device, peak: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """Both arms take turns, so that what changes on the machine changes for both. A case without room says so."""
    try:
        trainer = Trainer(case, device)
        runs = {arm: Arm(trainer, arm) for arm in ARMS}
        for turn in range(options.warm_up + options.repeats):
            for arm in runs.values():
                arm.turn(counts=turn >= options.warm_up)
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return asdict(case) | {"out_of_memory": str(error).splitlines()[0]}
    arms = {name: arm.result(peak) for name, arm in runs.items()}
    extra = arms["delta"]["seconds"]["step"] - arms["uniform"]["seconds"]["step"]
    return asdict(case) | {"arms": arms, "credit_share": extra / arms["delta"]["seconds"]["step"]}


class Arm:
    """Times and memory of one arm."""

    def __init__(self, trainer: Trainer, name: str) -> None:
        self.trainer, self.name = trainer, name
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self.bytes: dict[str, int] = dict.fromkeys(PHASES, 0)

    def turn(self, *, counts: bool) -> None:
        cuda = self.trainer.device.type == "cuda"
        phases = self.trainer.turn(self.name)
        for phase in PHASES:
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            begin = now(cuda)
            assert next(phases) == phase
            seconds = now(cuda) - begin
            if counts:
                self.seconds[phase].append(seconds)
                self.bytes[phase] = max(self.bytes[phase], torch.cuda.max_memory_allocated() if cuda else 0)

    def result(self, peak: float | None) -> dict[str, Any]:
        """Medians; tokens are those of all sequences, prompts included."""
        steps = [sum(values) for values in zip(*self.seconds.values(), strict=True)]
        seconds = {phase: statistics.median(values) for phase, values in (self.seconds | {"step": steps}).items()}
        tokens, flops = self.trainer.batch.token_ids_BT.numel(), self.trainer.flops()
        flops["step"] = flops["score"] + flops["update"]
        cuda = self.trainer.device.type == "cuda"
        return {
            "seconds": seconds,
            "tokens_per_second": {phase: tokens / seconds[phase] for phase in ("update", "step")},
            "mfu": {phase: flops[phase] / seconds[phase] / peak for phase in flops} if peak else None,
            "model_flops": flops,
            "peak_gib": {phase: value / 2**30 for phase, value in self.bytes.items()} if cuda else None,
        }


def now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


# Page ----------------------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "model": lambda row, arm: str(row["model"]),
    "tokens": lambda row, arm: f"{row['tokens']:,}",
    "weights, attention": lambda row, arm: f"{row['weights']}, {row['attention']}",
    "score, s": lambda row, arm: f"{arm['seconds']['score']:.3f}",
    "credit, s": lambda row, arm: f"{arm['seconds']['credit']:.4f}",
    "update, s": lambda row, arm: f"{arm['seconds']['update']:.3f}",
    "tokens/s, update": lambda row, arm: f"{arm['tokens_per_second']['update']:,.0f}",
    "tokens/s, step": lambda row, arm: f"{arm['tokens_per_second']['step']:,.0f}",
    "MFU, update": lambda row, arm: "" if arm["mfu"] is None else f"{arm['mfu']['update']:.1%}",
    "MFU, step": lambda row, arm: "" if arm["mfu"] is None else f"{arm['mfu']['step']:.1%}",
    "peak, GiB": lambda row, arm: "" if arm["peak_gib"] is None else f"{max(arm['peak_gib'].values()):.1f}",
}


def page(result: dict[str, Any]) -> str:
    """The results as a table for people."""
    source = result["provenance"]
    lines = [
        f"Device {source['device']}, commit {source['commit']}, `{source['command']}`, {source['time']}.",
        f"Medians of {result['repeats']} turns after {result['warm_up']}. Peak of the device: "
        + (f"{result['peak_tflops']:,.0f} TFLOPs per second." if result["peak_tflops"] else "not known, so no MFU."),
        "",
        "| credit | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (len(COLUMNS) + 1),
    ]
    for row in result["rows"]:
        if "out_of_memory" in row:
            lines.append(f"| | {row['model']} | {row['tokens']:,} | out of memory: {row['out_of_memory']} |")
            continue
        for name, arm in row["arms"].items():
            lines.append(f"| {name} | " + " | ".join(text(row, arm) for text in COLUMNS.values()) + " |")
    shares = [
        f"{row['model']} at {row['tokens']:,}: {row['credit_share']:.2%}" for row in result["rows"] if "credit_share" in row
    ]
    return "\n".join([*lines, "", "DelTA's share of a step, against uniform credit: " + "; ".join(shares) + ".", ""])


if __name__ == "__main__":
    main()
