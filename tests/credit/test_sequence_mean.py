from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta, SequenceMean, Uniform
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, golden, mixed
from support.reference_wrappers import members, sequence_means, tokens_of
from support.toy_credit import Shifting, of_tokens


@pytest.mark.parametrize("assigner", [Delta(), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner) -> None:
    part = SequenceMean(assigner=assigner)
    check_credit(part)
    assert not part.token_level() and part.additive() == assigner.additive()
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        view = View(mixed(dtype))
        inner, got, tokens = assigner.credit(view), part.credit(view), tokens_of(view.world)
        assert got.scale_BT.dtype == inner.scale_BT.dtype
        wanted = sequence_means(of_tokens(inner.scale_BT, view), tokens)
        assert of_tokens(got.scale_BT, view) == pytest.approx(wanted, rel=tolerance)
        if inner.shift_BT is not None:
            assert got.shift_BT is not None
            shifts = sequence_means(of_tokens(inner.shift_BT, view), tokens)
            assert of_tokens(got.shift_BT, view) == pytest.approx(shifts, rel=tolerance, abs=tolerance)


def test_golden() -> None:
    """DelTA's worked example: responses of 3, 2, 3 and 1 tokens."""
    view = View(golden())
    means = [(1.066752 + 0.889945 + 1.068494) / 3, (0.889945 + 1.115920) / 2, (1.139104 + 1.074668 + 0.991378) / 3, 0.763793]
    wanted = [means[0]] * 3 + [means[1]] * 2 + [means[2]] * 3 + [means[3]]
    assert of_tokens(SequenceMean().credit(view).scale_BT, view) == pytest.approx(wanted, abs=1e-6)


def test_the_weight_of_every_response_side_and_batch_stays() -> None:
    view = View(mixed())
    before, after = (of_tokens(part.credit(view).scale_BT, view) for part in (Delta(), SequenceMean()))
    for scope in ("sequence", "group", "side", "batch"):
        for unit in members(tokens_of(view.world), scope):
            assert sum(after[i] for i in unit) == pytest.approx(sum(before[i] for i in unit), rel=1e-12)
    assert max(abs(x - y) for x, y in zip(before, after, strict=True)) > 0.01


def test_degenerate_batches_are_uniform() -> None:
    for name in ("no advantage", "positive side only", "negative side only", "one token", "all tokens masked", "no rows"):
        world = degenerate()[name]
        assert torch.equal(SequenceMean().credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name
