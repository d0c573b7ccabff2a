"""Seconds of one rollout step, beside TRL's GRPOTrainer doing the same work in the same process.

32 prompts x 16 completions of up to 64 new tokens and four updates of 128 sequences, on a Qwen3 of about 0.8 M parameters with
random weights, float32, 2 threads. The arms take turns; the first rollout step of every turn is left out, and so are steps
beside which other processes kept the machine busy.

    pip install -e '.[bench]'
    python benchmarks/step/run.py                    # writes benchmarks/step/results.json
    python benchmarks/step/run.py --profile delta    # where one arm's time goes, by function
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `delta-lightning` does, for all arms alike

import lightning.pytorch as pl
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the verifier's worker processes too

from parity import Parity, parity  # noqa: E402

from delta_lightning.advantages import GroupStandardised  # noqa: E402
from delta_lightning.corrections import NoCorrection  # noqa: E402
from delta_lightning.credit import Delta, Uniform  # noqa: E402
from delta_lightning.data import Arithmetic  # noqa: E402
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean  # noqa: E402
from delta_lightning.models.backbone import LoadContext  # noqa: E402
from delta_lightning.models.tiny import Tiny  # noqa: E402
from delta_lightning.report import provenance  # noqa: E402
from delta_lightning.samplers import HFSampler  # noqa: E402
from delta_lightning.trainer.datamodule import PromptData  # noqa: E402
from delta_lightning.trainer.module import PolicyModule  # noqa: E402
from delta_lightning.types import SamplingParams  # noqa: E402

PROMPTS, GROUP, TOKENS, UPDATES, SEED = 32, 16, 64, 4, 0
LEARNING_RATE = 1e-6
MODEL = Tiny(layers=4, context=128)

Seconds = dict[str, float]
QUIET = 0.1  # cores: a rollout step beside which other processes used more than this is not counted


class Stopwatch:
    """Wall-clock, own processor seconds, and the cores that other processes of the machine used meanwhile (Linux)."""

    def __init__(self) -> None:
        self.start = self._now()

    def read(self) -> Seconds:
        wall, own, all_ = (now - then for now, then in zip(self._now(), self.start, strict=True))
        return {"step": wall, "cpu": own, "others": max(0.0, (all_ - own) / wall)}

    @staticmethod
    def _now() -> tuple[float, float, float]:
        user, nice, system = (int(word) for word in Path("/proc/stat").read_text().split()[1:4])
        return time.perf_counter(), time.process_time(), (user + nice + system) / os.sysconf("SC_CLK_TCK")


class Collect(pl.Callback):
    """Metrics of every rollout step, and its wall-clock seconds."""

    def __init__(self) -> None:
        self.rows: list[Seconds] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch = Stopwatch()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = self.watch.read()
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        phases = {name.split("/")[1]: value for name, value in values.items() if name.startswith("seconds/")}
        self.rows.append(total | {"tokens": values["rollout/completion_tokens"], **phases})


def ours(credit: Any, steps: int, folder: str) -> list[Seconds]:
    module = PolicyModule(
        backbone=MODEL, sampler=HFSampler(), verifier=Parity(), advantage=GroupStandardised(), credit=credit,
        loss=ClippedSurrogate(), weighting=Constant(), reduction=TokenMean(), correction=NoCorrection(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0),
        sampling=SamplingParams(max_new_tokens=TOKENS), prompts_per_step=PROMPTS, completions_per_prompt=GROUP,
        updates_per_step=UPDATES, micro_batches=1, seed=SEED,
    )  # fmt: skip
    rows = Collect()
    trainer = pl.Trainer(
        max_epochs=steps, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=folder, callbacks=[rows], accumulate_grad_batches=1,
    )  # fmt: skip
    try:
        trainer.fit(module, datamodule=PromptData(source=Arithmetic(num_train=PROMPTS * 64)))
    finally:
        module.close()
    return rows.rows


def trl(steps: int, folder: str) -> list[Seconds]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    seconds: Seconds = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with timed("sample"):
                return super()._generate(*args, **kwargs)

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            with timed("verify"):
                return super()._calculate_rewards(*args, **kwargs)

        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            with timed("rollout"):
                return super()._generate_and_score_completions(*args, **kwargs)

    class Rows(TrainerCallback):
        def __init__(self) -> None:
            self.rows: list[Seconds] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # The first step's data, which TRL samples in `training_step`, comes after this hook: a rollout batch lies
            # between two.
            if state.global_step % UPDATES == 0:
                self.watch = Stopwatch()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % UPDATES == 0:
                total, done = self.watch.read(), dict(seconds)
                seconds.clear()
                self.rows.append(
                    total | {
                        "sample": done["sample"], "verify": done["verify"],
                        "score": done["rollout"] - done["sample"] - done["verify"], "update": total["step"] - done["rollout"],
                        "tokens": statistics.fmean(trainer._metrics["train"]["completions/mean_length"][-1:]),
                    }
                )  # fmt: skip

    rows = Rows()
    problems = Arithmetic(num_train=PROMPTS * 64).problems("train")
    settings = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, learning_rate=LEARNING_RATE, beta=0.0,
        per_device_train_batch_size=PROMPTS * GROUP // UPDATES, steps_per_generation=UPDATES, num_generations=GROUP,
        num_iterations=1, max_completion_length=TOKENS, temperature=1.0, top_p=1.0, top_k=0, loss_type="dapo", epsilon=0.2,
        epsilon_high=0.28, max_steps=steps * UPDATES, lr_scheduler_type="constant", max_grad_norm=1.0, seed=SEED,
        logging_strategy="no", save_strategy="no", eval_strategy="no", report_to="none", disable_tqdm=True,
        optim="adamw_torch", weight_decay=0.0,
    )  # fmt: skip
    trainer = Timed(
        model=MODEL.load(LoadContext(seed=SEED)), processing_class=MODEL.tokenizer(), args=settings, callbacks=[rows],
        reward_funcs=lambda completions, **_: [parity(text) for text in completions],
        train_dataset=Dataset.from_list([{"prompt": problem.question} for problem in problems]),
    )  # fmt: skip
    trainer.train()
    return rows.rows


ARMS: dict[str, Callable[[int, str], list[Seconds]]] = {
    "trl": trl,
    "delta": lambda steps, folder: ours(Delta(), steps, folder),
    "uniform": lambda steps, folder: ours(Uniform(), steps, folder),
}


def quiet(rows: list[Seconds]) -> list[Seconds]:
    return [row for row in rows if row["others"] <= QUIET]


def medians(rows: list[Seconds]) -> Seconds:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quiet", type=int, default=8, help="quiet rollout steps wanted of each arm")
    arguments.add_argument("--turns", type=int, default=40, help="most turns of each arm")
    arguments.add_argument("--steps", type=int, default=3, help="rollout steps of a turn; the first is left out")
    arguments.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument("--threads", type=int, default=2, help="with 1, processor seconds are exact on a busy machine too")
    arguments.add_argument("--profile", choices=list(ARMS), help="print where the time of one arm goes, by function, and stop")
    arguments.add_argument("--out", type=Path, default=HERE / "results.json")
    options = arguments.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    if options.profile:
        profile(options.profile, options.steps)
        return
    rows: dict[str, list[Seconds]] = {arm: [] for arm in options.arms}
    for turn in range(options.turns):
        for arm in options.arms:
            with tempfile.TemporaryDirectory() as folder:
                rows[arm] += ARMS[arm](options.steps, folder)[1:]
            last = rows[arm][-1]
            print(f"turn {turn + 1}  {arm}: {last['step']:.2f} s, others used {last['others']:.2f} cores", flush=True)
        if all(len(quiet(rows[arm])) >= options.quiet for arm in rows):
            break
    result = {
        "work": {"prompts": PROMPTS, "completions": GROUP, "max_new_tokens": TOKENS, "updates": UPDATES,
                 "parameters": sum(p.numel() for p in MODEL.load(LoadContext()).parameters())},
        "quiet_steps": {arm: len(quiet(rows[arm])) for arm in rows},
        "median_quiet": {arm: medians(quiet(rows[arm])) for arm in rows if quiet(rows[arm])},
        "median_all": {arm: medians(rows[arm]) for arm in rows},
        "rows": rows,
        "provenance": provenance(seeds={"seed": SEED}, packages=("trl",)),
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("quiet_steps", "median_quiet", "median_all")}, indent=1))


def profile(arm: str, steps: int) -> None:
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        ARMS[arm](1, folder)
        profiler.enable()
        ARMS[arm](steps, folder)
        profiler.disable()
    text = io.StringIO()
    stats = pstats.Stats(profiler, stream=text)
    stats.sort_stats("tottime").print_stats(35)
    stats.sort_stats("cumulative").print_stats(60)
    print(text.getvalue())


if __name__ == "__main__":
    main()
