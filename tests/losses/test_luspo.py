from __future__ import annotations

import torch

from delta_lightning.losses import GSPO, LUSPO, SequenceMean, SequenceSum, TokenMean
from delta_lightning.testing.laws import at_log_ratio, check_loss, drift
from delta_lightning.testing.worlds import mixed, totals_of
from support import reference_losses


def test_summed_over_sequences_it_is_length_times_gspo() -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    experience, scores, leaf = at_log_ratio(world, 0.001 * drift(world))
    part = LUSPO()
    loss = (part.per_token(experience, scores, None) * SequenceSum().weights(experience, totals_of(world))).sum()
    wanted, rows = 0.0, 0
    for row in range(len(mask_BT)):
        at = mask_BT[row]
        if bool(at.any()):
            new, old = (x[row][at].detach().tolist() for x in (leaf, experience.old_logprobs_BT))
            advantages = [float(world.advantages[row])] * len(new)
            losses, _ = reference_losses.gspo(new, old, advantages, low=2e-3, high=2.5e-3)
            wanted, rows = wanted + len(new) * losses[0], rows + 1
    torch.testing.assert_close(float(loss.detach()), wanted / rows, rtol=1e-12, atol=1e-12)


def test_reductions_decide_the_length_factor() -> None:
    """The token mean is the published loss over the mean length; the sequence mean of token means is GSPO."""
    world = mixed()
    totals = totals_of(world)
    experience, scores, _ = at_log_ratio(world, 0.001 * drift(world))
    loss_BT = LUSPO().per_token(experience, scores, None).detach()
    by = {
        part: float((loss_BT * part.weights(experience, totals)).sum()) for part in (SequenceSum(), TokenMean(), SequenceMean())
    }
    torch.testing.assert_close(by[TokenMean()], by[SequenceSum()] * totals.sequences / totals.tokens)
    same = GSPO(clip_low=2e-3, clip_high=2.5e-3).per_token(experience, scores, None).detach()
    assert by[SequenceMean()] == float((same * SequenceMean().weights(experience, totals)).sum())
    assert abs(by[SequenceMean()] - by[TokenMean()]) > 1e-3


def test_obeys_the_laws_and_erases_credit() -> None:
    check_loss(LUSPO(clip_low=0.2, clip_high=0.3))
    assert LUSPO().erases_token_credit()
    assert LUSPO() == LUSPO(clip_low=2e-3, clip_high=2.5e-3, log_ratio_clamp=10.0)
