"""What a run exports is what it trained: the same bits, and the same log-probabilities in `transformers` and in vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from delta_lightning.cli.export import write
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.lora import LoRA
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.weights import weights_of
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.callbacks import HFExport
from delta_lightning.trainer.ranks import Ranks
from support.lora import merged
from support.runs import run
from support.world import run_ranks

pytestmark = pytest.mark.timeout(600)
PROBE = [[50, 51, 52, 60, 49, 48, 47, 80, 100, 4], [7, 200, 13]]  # the first is longer than the sliding window


class Kind(NamedTuple):
    strategy: str
    family: str
    tied: bool
    devices: int = 1
    lora: bool = False

    @property
    def adapter(self) -> LoRA | None:
        return LoRA(rank=4) if self.lora else None


KINDS = [
    Kind("auto", "qwen3", tied=True), Kind("auto", "olmo3", tied=False),
    Kind("ddp", "qwen3", tied=False, devices=2), Kind("fsdp2", "qwen3", tied=True, devices=2),
    Kind("fsdp2", "olmo3", tied=False, devices=2), Kind("fsdp2, bfloat16", "qwen3", tied=False, devices=2),
    Kind("auto", "qwen3", tied=True, lora=True), Kind("fsdp2", "olmo3", tied=False, devices=2, lora=True),
]  # fmt: skip
BFLOAT16, ADAPTED = KINDS[5], KINDS[6:]
STRATEGIES: dict[str, Any] = {"fsdp2, bfloat16": lambda: FSDP2Strategy(compute_dtype="bfloat16")}


def backbone(kind: Kind) -> Tiny:
    """The narrowest that vLLM serves on CPUs."""
    return Tiny(
        family=kind.family, hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=64,  # type: ignore[arg-type]
        tie_embeddings=kind.tied, sliding_window=6, seed=0,
    )  # fmt: skip


class Speak(pl.Callback):
    """Notes what the trained policy says of the probe, computed as the strategy computes, and its weights.

    `plain`: what the model with the policy's weights says, an adapter's merged; without one the policy itself. With an adapter
    it saves a checkpoint too.
    """

    said: list[Tensor]
    plain: list[Tensor]
    weights: dict[str, Tensor]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        self.said = self.plain = sequence_logprobs(module.policy, PROBE)
        if module.adapter is not None:
            self.plain = sequence_logprobs(merged(module.policy), PROBE)
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "end.ckpt")
        self.weights = {name: value.clone() for name, value in weights_of(module.policy)}


class Told(NamedTuple):
    """Where a run exported to, the weights that it ended with, and what its policy said of the probe; see `Speak`."""

    folder: Path
    weights: dict[str, Tensor]
    said: list[Tensor]
    plain: list[Tensor]


def train(kind: Kind, folder: Path) -> Told:
    speak = Speak()
    place = folder / f"{kind.strategy}-{kind.family}-{kind.lora}"
    strategy = STRATEGIES.get(kind.strategy, lambda: kind.strategy)()
    ended = run(
        strategy,
        devices=kind.devices,
        backbone=backbone(kind),
        folder=place,
        callbacks=[speak, HFExport()],
        adapter=kind.adapter,
    )
    weights = speak.weights if kind.lora else ended.values
    return Told(place / "export", weights, speak.said, speak.plain)


def train_all(folder: Path) -> dict[Kind, Told]:
    return {kind: train(kind, folder) for kind in KINDS if kind.devices == Ranks.current().size}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Told]:
    folder = tmp_path_factory.mktemp("exports")
    return train_all(folder) | run_ranks(2, train_all, folder)[0]


def loaded(folder: Path) -> Any:
    """As anybody would load it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_weights_are_the_trained_ones_to_the_bit(kind: Kind, exports: dict[Kind, Told]) -> None:
    told = exports[kind]
    model = loaded(told.folder)
    begun = dict(backbone(kind).load(LoadContext()).named_parameters())
    assert {name for name, _ in model.named_parameters()} == set(told.weights) == set(begun)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, told.weights[name]), name
        trained = not kind.lora or name.endswith("_proj.weight")
        assert torch.equal(parameter, begun[name]) != trained, f"{name}: nothing is shown, or a frozen weight moved"
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == kind.tied


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != BFLOAT16], ids=str)
def test_transformers_gives_the_same_log_probabilities_to_the_bit(kind: Kind, exports: dict[Kind, Told]) -> None:
    told = exports[kind]
    model = loaded(told.folder)
    for ids, said, plain, got in zip(PROBE, told.said, told.plain, sequence_logprobs(model, PROBE), strict=True):
        assert torch.equal(got, plain)
        assert float((got - said).abs().max()) < 1e-5  # an adapter's policy adds what the export has added up
        assert float((plainly(model, ids) - said).abs().max()) < 1e-5  # the head's chunks and one softmax round differently


def plainly(model: Any, ids: list[int]) -> Tensor:
    """Without a line of this project."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return torch.log_softmax(logits.double(), -1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].float()


@pytest.mark.parametrize("kind", ADAPTED, ids=str)
def test_the_checkpoint_exports_the_same_and_peft_reads_the_adapter_alone(
    kind: Kind, exports: dict[Kind, Told], tmp_path: Path
) -> None:
    from peft import PeftModel

    told = exports[kind]
    for name in ("whole", "alone"):
        options: dict[str, Any] = {"backbone": backbone(kind), "adapter": kind.adapter, "context": LoadContext()}
        write(told.folder.parent / "end.ckpt", tmp_path / name, alone=name == "alone", **options)
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (told.folder / "model.safetensors").read_bytes()
    base = backbone(kind).load(LoadContext())
    before = sequence_logprobs(base, PROBE)
    model = PeftModel.from_pretrained(base, tmp_path / "alone").get_base_model()
    for got, said, other in zip(sequence_logprobs(model, PROBE), told.said, before, strict=True):
        assert torch.equal(got, said) and float((got - other).abs().max()) > 1e-3


def test_an_export_of_a_run_that_computes_in_bfloat16_has_its_float32_weights(exports: dict[Kind, Told]) -> None:
    told = exports[BFLOAT16]
    model = loaded(told.folder)
    assert any(not torch.equal(p, p.bfloat16().float()) for p in model.parameters()), "no bit beyond bfloat16"
    for parameter in model.parameters():
        parameter.data = parameter.bfloat16()  # and no buffer: rotary frequencies stay float32
    for said, got in zip(told.said, sequence_logprobs(model, PROBE), strict=True):
        assert torch.equal(got, said)


SERVE = """
import json, os, sys
from vllm import LLM, SamplingParams

folder, ids = sys.argv[1], json.loads(sys.argv[2])
engine = LLM(model=folder, dtype="float32", max_model_len=64, max_num_seqs=4, enforce_eager=True, disable_log_stats=True)
params = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
outputs = engine.generate([{"prompt_token_ids": row} for row in ids], params, use_tqdm=False)
said = [[entry[t].logprob for t, entry in zip(o.prompt_token_ids[1:], o.prompt_logprobs[1:])] for o in outputs]
print("SAID", json.dumps(said), flush=True)
os._exit(0)
"""


@pytest.mark.vllm
@pytest.mark.parametrize("kind", [KINDS[1], KINDS[3], *ADAPTED], ids=str)
def test_vllm_loads_the_folder_and_gives_the_same_log_probabilities(kind: Kind, exports: dict[Kind, Told]) -> None:
    """In a process of its own, from the path alone: model, config and tokenizer are what the folder has."""
    told = exports[kind]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(told.folder), json.dumps(PROBE)], capture_output=True, text=True, check=False,
        env=os.environ | settings | {"VLLM_NO_USAGE_STATS": "1"}, timeout=300,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, done.stderr[-2000:]
    for got, said in zip(json.loads(lines[0][5:]), told.said, strict=True):
        assert float((torch.tensor(got) - said).abs().max()) < 1e-4
