"""HFSampler beside plain `model.generate` and beside what TRL's GRPOTrainer samples with: `generate`, or continuous batching.

    python benchmarks/sampling/beside_trl.py --threads 1     # needs the extra `bench`; writes beside_trl.json

TRL's own code runs, `GRPOTrainer._generate_single_turn`, on the same weights, prompts and limit (`run.py` has the models). Arms
take turns in one process, more of them for small groups, so that each samples as many completions; the lengths are drawn, so
rates divide by the tokens sampled. Tokens per processor second stand beside tokens per second, for machines that are not idle.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `delta-lightning` does, for all arms alike
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from run import GROUPS, MODELS, SEED, Measured, added, build, given, ours, plain, timed  # noqa: E402

from delta_lightning.models.tokenizer import byte_tokenizer  # noqa: E402
from delta_lightning.report import provenance  # noqa: E402
from delta_lightning.types import Prompt  # noqa: E402

CPU = torch.device("cpu")
CACHE = {"page_size": 32, "num_blocks": 2048, "max_batch_tokens": 512}  # room for every completion at its limit
ARMS = ("generate", "trl", "trl_continuous_batching", "hf_sampler")


def trainer_of(model: Any, size: dict[str, Any], group: int, continuous: bool) -> Any:
    """TRL's trainer around the model; its rollout batch is all completions at once."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    paged = {"use_transformers_continuous_batching": True, "transformers_continuous_batching_config": CACHE}
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, gradient_checkpointing=False, beta=0.0,
        per_device_train_batch_size=size["prompts"] * group, steps_per_generation=1, num_generations=max(2, group),
        max_completion_length=size["limit"], temperature=1.0, top_p=1.0, top_k=0, report_to="none", disable_tqdm=True,
        logging_strategy="no", save_strategy="no", seed=SEED, **(paged if continuous else {}),
    )  # fmt: skip
    return GRPOTrainer(
        model=model, processing_class=byte_tokenizer(), args=config,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(256)]),
    )  # fmt: skip


def by_trl(trainer: Any, prompts: list[Prompt], group: int, seed: int) -> list[list[int]]:
    """Tokens of the completions of one rollout; TRL is given a prompt once for each of them."""
    torch.manual_seed(seed)
    rows = [list(prompt.token_ids) for prompt in prompts for _ in range(group)]
    completions, _ = trainer._generate_single_turn(rows, None, {}, group)
    assert len(completions) == len(rows), "a failed request is left out"
    assert all(completions)
    return completions  # type: ignore[no-any-return]


def arms(size: dict[str, Any], group: int) -> dict[str, Callable[[list[Prompt], int], list[int]]]:
    """Arm -> the lengths of the completions that it samples with a seed. Each has a model of its own, of the same weights."""
    limit = size["limit"]
    own, engines = build(size, CPU), build(size, CPU)
    trl, paged = (trainer_of(build(size, CPU), size, group, continuous) for continuous in (False, True))
    return {
        "generate": lambda prompts, seed: plain(own, prompts, group, limit, seed),
        "trl": lambda prompts, seed: [len(ids) for ids in by_trl(trl, prompts, group, seed)],
        "trl_continuous_batching": lambda prompts, seed: [len(ids) for ids in by_trl(paged, prompts, group, seed)],
        "hf_sampler": lambda prompts, seed: [len(c.token_ids) for c in ours(engines, prompts, group, limit, seed)],
    }


def continuous_batching(size: dict[str, Any]) -> dict[str, Any]:
    """What `generate_batch` of transformers does to completions and log-probabilities; 16 prompts, four of each."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    model, prompts = build(size, CPU), given(16)
    settings = GenerationConfig(
        max_new_tokens=size["limit"], do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0,
        eos_token_id=model.generation_config.eos_token_id, num_return_sequences=4,
    )  # fmt: skip

    def sample(order: list[Prompt]) -> dict[tuple[int, ...], list[tuple[list[int], list[float]]]]:
        out = model.generate_batch(
            [list(prompt.token_ids) for prompt in order], generation_config=settings, warmup=False,
            continuous_batching_config=ContinuousBatchingConfig(**CACHE, seed=SEED, return_logprobs=True),
        )  # fmt: skip
        found: dict[tuple[int, ...], list[tuple[list[int], list[float]]]] = {}
        for one in out.values():
            found.setdefault(tuple(one.prompt_ids), []).append((one.generated_tokens, one.logprobs))
        return {prompt: sorted(completions) for prompt, completions in found.items()}

    first, again, reverse, alone = sample(prompts), sample(prompts), sample(prompts[::-1]), sample(prompts[:8])
    gaps = []
    for prompt, completions in first.items():
        for tokens, logprobs in completions:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            exact = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens)[:, None])[:, 0]
            gaps.append(float((exact - torch.tensor(logprobs)).abs().max()))

    def changed(other: dict[tuple[int, ...], list[tuple[list[int], list[float]]]]) -> str:
        pairs = [(a[0], b[0]) for prompt in other for a, b in zip(first[prompt], other[prompt], strict=True)]
        return f"{sum(a != b for a, b in pairs)} of {len(pairs)}"

    return {
        "completions_with_other_tokens": {
            "same seed, same order": changed(again), "same seed, prompts in reverse": changed(reverse),
            "same seed, half of the prompts": changed(alone),
        },
        "largest_logprob_error": max(gaps),
    }  # fmt: skip


def measure(name: str, groups: Sequence[int], turns: int) -> list[dict[str, Any]]:
    size, rows = MODELS[name], []
    units, prompts = ("tokens_per_second", "tokens_per_cpu_second"), given(MODELS[name]["prompts"])
    for group in groups:
        work = arms(size, group)
        for arm in ARMS:
            work[arm](prompts[:1], SEED)  # kernels and imports, outside of every measurement
        found: dict[str, list[Measured]] = {arm: [] for arm in ARMS}
        for turn, arm in itertools.product(range(turns * max(GROUPS) // group), ARMS):
            found[arm].append(timed(functools.partial(work[arm], prompts, SEED + turn)))
        row: dict[str, Any] = {"model": name, "group": group} | {arm: added(measured) for arm, measured in found.items()}
        row["hf_sampler_over"] = {
            arm: {unit: round(row["hf_sampler"][unit] / row[arm][unit], 2) for unit in units}
            for arm in ARMS[:-1]
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--turns", type=int, default=2, help="of the largest group; smaller ones take more")
    parser.add_argument("--only", help="one model")
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, help="completions for each prompt")
    parser.add_argument("--out", type=Path, default=HERE / "beside_trl.json")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    names = [name for name in MODELS if options.only in (None, name)]
    laws = continuous_batching(MODELS["tiny"])
    print(json.dumps(laws), flush=True)
    rows = [row for name in names for row in measure(name, options.groups, options.turns)]
    result = {
        "provenance": provenance(seeds={"model": 0, "sampling": SEED}, packages=("trl", "psutil")),
        "models": {name: MODELS[name] for name in names}, "cache": CACHE, "continuous_batching": laws, "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
