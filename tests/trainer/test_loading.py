"""A policy with an adapter is to every part what the plain model with the merged weights is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError, DeltaError
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.lora import LoRA
from delta_lightning.models.recomputing import _Recomputed
from delta_lightning.models.tiny import Tiny
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.loading import load_policy
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof
from support.copies import CopySession
from support.lora import adapted, merged
from support.models import NumberTokenizer, tiny_model
from support.prompts import number_prompts
from support.runs import run
from support.steps import StepSetup, gradients, make_buffer
from support.world import run_ranks

TOLERANCE = 1e-5  # norms of `transformers` compute in float32, whatever the model's dtype


def test_the_gradient_of_a_b_is_that_of_the_merged_weight() -> None:
    """dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW."""
    model = adapted(dtype=torch.float64)
    plain, setup = merged(model), StepSetup(groups=4)
    mine, theirs = (gradients(one, make_buffer(one, setup), setup)[0][0] for one in (model, plain))
    for path in LoRA(rank=4).targets_in(model):
        layer, whole = model.get_submodule(path), theirs[f"{path}.weight"]
        a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
        for name, want in (("B", 8.0 * whole @ a.T), ("A", 8.0 * b.T @ whole)):
            found = mine[f"{path}.lora_{name}.default.weight"]
            assert float((found - want).abs().max() / want.abs().max()) < TOLERANCE, (path, name)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_a_sampler_with_a_copy_gets_merged_weights_and_proves_it(family: str) -> None:
    model = adapted(family)
    session: Any = CopySession(tiny_model(family), NumberTokenizer())
    proof, book = WeightProof(WeightCheck(), number_prompts(), 256), MetricBook()
    for version in range(2):
        receipt = proof.deliver(session, version, model, book)
        proof.probe(session, version, model, book)
        with torch.no_grad():
            for parameter in (value for value in model.parameters() if value.requires_grad):
                parameter.mul_(1.5)
    values = book.take(Ranks())
    assert values["sync/probe_max_nats"] < 1e-4 and values["sync/moved_max_nats"] > 1e-3
    base = list(tiny_model(family).parameters())
    assert receipt.num_tensors == len(base) and receipt.num_bytes == sum(value.numel() * 4 for value in base)


def test_what_is_trained_is_said_and_layers_are_recomputed() -> None:
    lines: list[str] = []
    context = LoadContext(seed=3, say=lines.append)
    backbone = Tiny(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32)
    policy = load_policy(backbone, LoRA(rank=4), context, None, activation_checkpointing=True)
    assert any("2,048 of 10,896 parameters are trained (18.80%), the base is frozen" in line for line in lines)
    assert all(isinstance(layer.forward, _Recomputed) for layer in policy.model.layers)
    assert len(policy.state_dict()) == 28


@dataclass(frozen=True, kw_only=True)
class Gone(Tiny):
    """A model whose files are not there on rank 1."""

    def weight_files(self, context: LoadContext) -> None:
        if Ranks.current().rank == 1:
            raise ConfigError("model here", wanted="its files", got="none", remedy="Fetch them.")


def on_a_rank() -> str:
    with pytest.raises(DeltaError) as said:
        run(FSDP2Strategy(), devices=2, backbone=Gone(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32))
    return str(said.value)


def test_a_model_that_one_rank_cannot_read_ends_every_rank() -> None:
    assert run_ranks(2, on_a_rank) == [
        "the model could not be loaded by every rank; the one that failed says why",
        "model here: wanted its files, got none. Fetch them.",
    ]
