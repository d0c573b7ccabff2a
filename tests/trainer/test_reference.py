"""The reference policy: frozen at the start, outside the module, sharded, scored once per rollout batch."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from delta_lightning.interfaces import Penalty
from delta_lightning.models.scorer import Scorer
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.reference import ReferencePolicy
from delta_lightning.types import Experience, Need, TokenScores
from support.lora import adapted
from support.models import tiny_model
from support.steps import StepSetup, gradients, make_buffer
from support.world import run_ranks


@dataclass(frozen=True, kw_only=True)
class ToyKL(Penalty):
    """0.1 * (log pi - log pi_ref)^2 / 2."""

    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        assert experience.reference_logprobs_BT is not None
        gap = (scores.logprobs_BT - experience.reference_logprobs_BT) * experience.batch.loss_mask_BT
        return 0.05 * gap.square()

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.REFERENCE})


def with_reference(size_of_layers: bool = False) -> dict[str, object]:
    """Reference log-probabilities by sequence, the step's gradients, and the bytes of this rank's reference."""
    torch.set_num_threads(1)
    reference = ReferencePolicy(tiny_model(seed=7), device=torch.device("cpu"), ranks=Ranks.current())
    setup = StepSetup(penalties=(ToyKL(),), reference=reference.scorer(1.0), micro=3)
    model = tiny_model()
    buffer = make_buffer(model, setup)
    batch, values = buffer.experience.batch, buffer.experience.reference_logprobs_BT
    assert values is not None and not values.requires_grad
    rows = {int(s): values[row][batch.loss_mask_BT[row]] for row, s in enumerate(batch.sequence_ids_B)}
    grads, losses = gradients(model, buffer, setup)
    return {"rows": rows, "grads": grads, "losses": losses, "bytes": reference.bytes()}


def test_log_probabilities_are_those_of_the_other_model() -> None:
    result = with_reference()
    setup = StepSetup()
    alone = make_buffer(tiny_model(seed=7), setup).experience
    for row, sequence in enumerate(alone.batch.sequence_ids_B.tolist()):
        want = alone.old_logprobs_BT[row][alone.batch.loss_mask_BT[row]]
        torch.testing.assert_close(result["rows"][sequence], want, atol=1e-5, rtol=0)


def test_a_copy_does_not_move_with_the_policy() -> None:
    policy = tiny_model()
    reference = ReferencePolicy(policy, device=torch.device("cpu"), ranks=Ranks())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    theirs = reference.scorer(1.0).model
    assert all(not p.requires_grad for p in theirs.parameters())
    assert float(theirs.lm_head.weight.abs().sum()) > 0
    assert reference.bytes() == sum(p.numel() * 4 for p in tiny_model().parameters())


@pytest.mark.parametrize("size", [2])
def test_sharded_over_ranks_it_says_the_same(size: int) -> None:
    want = with_reference()
    parts = run_ranks(size, with_reference)
    merged = {key: value for part in parts for key, value in part["rows"].items()}
    assert merged.keys() == want["rows"].keys()
    for key, value in merged.items():
        torch.testing.assert_close(value, want["rows"][key], atol=1e-6, rtol=0)
    for part in parts:
        assert part["losses"] == pytest.approx(want["losses"], abs=1e-5)
        for mine, whole in zip(part["grads"], want["grads"], strict=True):
            for name in whole:
                assert float((mine[name] - whole[name]).abs().max() / whole[name].abs().max()) < 1e-5, name
    for part in parts:
        assert part["bytes"] == pytest.approx(want["bytes"] / size, rel=0.01), "not sharded"


def test_it_is_sharded_before_the_copy_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no device ever holds all of it."""
    seen: list[str] = []
    monkeypatch.setattr("torch.distributed.device_mesh.init_device_mesh", lambda kind, sizes: SimpleNamespace(device_type=kind))
    monkeypatch.setattr(
        "torch.distributed.fsdp.fully_shard", lambda layer, **_: seen.append(next(layer.parameters()).device.type)
    )
    ReferencePolicy(tiny_model(), device=torch.device("meta"), ranks=Ranks(0, 2))
    assert seen == ["cpu"] * (len(tiny_model().model.layers) + 1), "each layer, and the rest"


def test_the_scorer_has_the_sampling_temperature() -> None:
    reference = ReferencePolicy(tiny_model(), device=torch.device("cpu"), ranks=Ranks())
    assert isinstance(reference.scorer(0.7), Scorer) and reference.scorer(0.7).temperature == 0.7


# A policy with an adapter ------------------------------------------------------------------------------------------------


def of_an_adapter() -> tuple[ReferencePolicy, object]:
    policy = adapted()
    return ReferencePolicy(policy, device=torch.device("cpu"), ranks=Ranks.current()), policy


def test_of_an_adapter_it_is_the_frozen_base_and_costs_nothing() -> None:
    reference, policy = of_an_adapter()
    assert reference.bytes() == 0 and reference.scorer(0.7).temperature == 0.7
    rows = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0])
    base = Scorer(model=tiny_model(), temperature=0.7).score(rows, frozenset()).logprobs_BT
    scores = reference.scorer(0.7).score(rows, frozenset({Need.ENTROPY, Need.HIDDEN}))
    assert torch.equal(scores.logprobs_BT, base.detach()) and not scores.logprobs_BT.requires_grad
    assert scores.entropies_BT is not None and scores.hidden_ND is not None
    trained = Scorer(model=policy, temperature=0.7).score(rows, frozenset()).logprobs_BT
    assert float((trained - base).detach().abs().max()) > 1e-3 and trained.requires_grad, "the adapter is on again"


def adapted_step(copied: bool) -> dict[str, object]:
    """A step of an adapted policy whose reference is its base, or a copy of the base."""
    torch.set_num_threads(1)
    reference, policy = of_an_adapter()
    if copied:
        reference = ReferencePolicy(tiny_model(), device=torch.device("cpu"), ranks=Ranks.current())
    setup = StepSetup(penalties=(ToyKL(),), reference=reference.scorer(1.0), micro=3)
    buffer = make_buffer(policy, setup)
    names = {name for name, value in policy.named_parameters() if value.requires_grad}  # type: ignore[attr-defined]
    grads, losses = gradients(policy, buffer, setup)
    return {"grads": [{name: one[name] for name in names} for one in grads], "losses": losses}


def test_its_step_is_that_of_a_copied_reference() -> None:
    base, copied = adapted_step(copied=False), adapted_step(copied=True)
    assert base["losses"] == copied["losses"]
    for mine, theirs in zip(base["grads"], copied["grads"], strict=True):  # type: ignore[call-overload]
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
