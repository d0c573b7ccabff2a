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


def test_min_p_is_relative_to_the_most_probable_token() -> None:
    torch.testing.assert_close(warp_logits(P.log(), min_p=0.4).exp(), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))
    torch.testing.assert_close(warp_logits(P.log(), min_p=0.25).exp(), P)
    torch.testing.assert_close(warp_logits(P.log(), min_p=0.99).exp(), torch.tensor([[1.0, 0, 0, 0]]))


def test_cuts_follow_each_other() -> None:
    """Each works on what the one before left: 0.6 of the whole keeps two tokens, 0.6 of the first two only one."""
    torch.testing.assert_close(warp_logits(P.log(), top_k=3, top_p=0.7, min_p=0.6).exp(), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(warp_logits(P.log(), top_k=2, top_p=0.7).exp(), torch.tensor([[2 / 3, 1 / 3, 0, 0]]))
    torch.testing.assert_close(warp_logits(P.log(), top_k=2, top_p=0.6).exp(), torch.tensor([[1.0, 0, 0, 0]]))


def test_draws_from_a_large_vocabulary() -> None:
    """Several blocks of the vocabulary, one of them without mass: the same tokens as by one sum in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2000, 700, generator=generator)
    logits[:, 256:512] = -torch.inf
    logprobs = torch.log_softmax(logits, -1)
    u = torch.rand(2000, generator=generator, dtype=torch.float64)
    p = logprobs.exp().double()
    expected = torch.searchsorted(p.cumsum(-1), (u * p.sum(-1))[:, None], right=True)[:, 0]
    assert draw(logprobs, u).tolist() == expected.tolist()


def test_extreme_draws_stay_inside_the_distribution() -> None:
    logprobs = torch.full((2, 600), -torch.inf)
    logprobs[:, 3], logprobs[:, 300] = torch.tensor(0.5).log(), torch.tensor(0.5).log()
    assert draw(logprobs, torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64)).tolist() == [3, 300]
