"""The proxies on a transformer, its real scorer and its cache, against gradients by automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import GradientProxy, HeadGradient, HiddenGradient, OutputRow, TopKHiddenGradient
from delta_lightning.functional.delta import delta_coefficients
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.view import RolloutView
from support.models import tiny_model
from support.steps import StepSetup, make_buffer

TEMPERATURE = 0.8
PROXIES: dict[str, GradientProxy] = {
    "row": OutputRow(), "hidden": HiddenGradient(), "top_k": TopKHiddenGradient(k=64), "head": HeadGradient(),
}  # fmt: skip


def view_of(
    part: Delta, *, tied: bool = True, dtype: torch.dtype = torch.float64, cache: HiddenCache | None = None
) -> RolloutView:
    model = tiny_model(tie_word_embeddings=tied, dtype=dtype)
    buffer = make_buffer(model, StepSetup(micro=3))
    view = RolloutView(
        buffer.experience.batch, micro=buffer.micro, scorer=Scorer(model=model, temperature=TEMPERATURE), needs=part.needs(),
        cache=cache or HiddenCache(), ranks=Ranks.current(), seed=(0, 0),
    )  # fmt: skip
    view.set_advantages(torch.tensor([0.5, -1.0, 0.0, 1.5, -0.2]).repeat(view.batch.num_sequences)[: view.batch.num_sequences])
    return view


def gradients(view: RolloutView, name: str) -> Tensor:
    """[N, D] or [N, V D] by automatic differentiation of log p, times the temperature."""
    rows = []
    with view.head() as head:
        for part, scores in view.passes():
            batch = view.batch.rows(part)
            assert scores.hidden_ND is not None
            for h, y in zip(scores.hidden_ND, batch.token_ids_BT[batch.loss_mask_BT], strict=True):
                state, weight = h.clone().requires_grad_(), head.weight_VD.clone().requires_grad_()
                torch.log_softmax(weight @ state / TEMPERATURE, 0)[y].backward()
                assert state.grad is not None and weight.grad is not None
                of = {"row": weight.grad[y], "head": weight.grad.flatten()}
                rows.append(of.get(name, state.grad) * TEMPERATURE)
    return torch.stack(rows)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", PROXIES)
def test_equals_automatic_differentiation(name: str, tied: bool) -> None:
    part = Delta(proxy=PROXIES[name])
    view = view_of(part, tied=tied)
    mask_BT = view.batch.loss_mask_BT
    assert view.advantages is not None
    wanted = delta_coefficients(gradients(view, name), view.advantages[:, None].expand(mask_BT.shape)[mask_BT])
    got = part.credit(view).scale_BT[mask_BT]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8)
    assert float(got.std()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PROXIES)
def test_kept_and_recomputed_states_agree(name: str, dtype: torch.dtype) -> None:
    part = Delta(proxy=PROXIES[name])
    wanted = part.credit(view_of(part, dtype=dtype)).scale_BT
    never = HiddenCache(device_gib=0, host_gib=0)
    assert torch.equal(part.credit(view_of(part, dtype=dtype, cache=never)).scale_BT, wanted)
    rounded = part.credit(view_of(part, dtype=dtype, cache=HiddenCache(dtype="bfloat16"))).scale_BT
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded, wanted, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", PROXIES)
def test_a_bfloat16_model(name: str) -> None:
    """Logits in bfloat16 are those of the policy itself; the coefficients are float32 and near those of the float32 model."""
    part = Delta(proxy=PROXIES[name])
    got, wanted = (part.credit(view_of(part, dtype=dtype)).scale_BT for dtype in (torch.bfloat16, torch.float32))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.05)
