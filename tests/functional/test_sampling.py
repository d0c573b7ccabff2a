"""The warped distribution and the draw from it."""

from __future__ import annotations

import torch

from delta_lightning.functional.sampling import draw, warp_logits

P = torch.tensor([[0.5, 0.25, 0.125, 0.125]])


def test_untouched_without_truncation() -> None:
    assert warp_logits(P.log()) is not None
    torch.testing.assert_close(warp_logits(P.log()), P.log())


def test_top_k_renormalises() -> None:
    torch.testing.assert_close(warp_logits(P.log(), top_k=2).exp(), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    torch.testing.assert_close(warp_logits(P.log(), top_p=0.6).exp(), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))
    torch.testing.assert_close(warp_logits(P.log(), top_p=0.5).exp(), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(warp_logits(P.log(), top_p=1e-9).exp(), torch.tensor([[1.0, 0, 0, 0]]))


def test_draw_inverts_the_distribution_function() -> None:
    u = torch.tensor([0.0001, 0.4999, 0.5001, 0.7499, 0.7501, 0.8749, 0.8751, 0.9999], dtype=torch.float64)
    assert draw(P.log().expand(8, 4), u).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_draw_never_takes_a_token_of_probability_zero() -> None:
    logprobs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log()
    u = torch.linspace(1e-12, 1 - 1e-12, 1001, dtype=torch.float64)
    assert set(draw(logprobs.expand(1001, 5), u).tolist()) == {1, 3}
