from __future__ import annotations

import pytest
import torch

from delta_lightning.functional.token_baseline import gradient_energy, token_baseline_advantages


def test_energy_is_the_squared_norm_of_the_gradient_of_the_logits() -> None:
    logits_NV = torch.randn(20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    logits_NV.requires_grad_()
    targets_N = torch.arange(20) % 9
    log_p_NV = torch.log_softmax(logits_NV, -1)
    (gradient_NV,) = torch.autograd.grad(log_p_NV.gather(1, targets_N[:, None]).sum(), logits_NV)
    p_NV = log_p_NV.detach().exp()
    got = gradient_energy(p_NV.log().gather(1, targets_N[:, None])[:, 0], p_NV.square().sum(1))
    torch.testing.assert_close(got, gradient_NV.square().sum(1), rtol=1e-12, atol=1e-14)


def test_energy_near_certainty_keeps_its_digits() -> None:
    """p = 1 - 1e-9 and the rest on one other token: 2e-18, which 1 - 2 p + sum p^2 would lose."""
    log_p = torch.log1p(torch.tensor([-1e-9], dtype=torch.float64))
    p = log_p.exp()
    assert gradient_energy(log_p, p.square()).item() == pytest.approx(1e-18, rel=1e-6)


def test_the_nth_trained_tokens_meet_whatever_their_column() -> None:
    rewards_B, groups_B, valid_B = torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.int64), torch.ones(2).bool()
    mask_BT = torch.tensor([[True, True, False, False], [False, True, False, True]])
    energy_BT = torch.tensor([[1.0, 2.0, 9.0, 9.0], [9.0, 3.0, 9.0, 1.0]])
    got = token_baseline_advantages(rewards_B, groups_B, valid_B, mask_BT, energy_BT, eps=0.0)
    first, second = 1 / 4, 3 / 7
    assert got[0].tolist() == pytest.approx([1 - first, 1 - second, 0, 0])
    assert got[1].tolist() == pytest.approx([0, -first, 0, -second])


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_answers_alike_in_reward_that_last_longest_have_no_sign(eps: float) -> None:
    """Past the wrong answer's end all are right: what is left of 1 - B is rounding, whose sign follows the order of a sum."""
    count, length = 7, 40
    rewards_B = torch.tensor([0.7] * (count - 1) + [0.0])
    mask_BT = torch.ones(count, length, dtype=torch.bool)
    mask_BT[-1, 3:] = False
    energy_BT = torch.rand(count, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups_B, valid_B = torch.zeros(count, dtype=torch.int64), torch.ones(count).bool()
    got = token_baseline_advantages(rewards_B, groups_B, valid_B, mask_BT, energy_BT, eps=eps)
    assert not bool(got[:, 3:].any()) and bool((got[:-1, :3] > 0).all()) and bool((got[-1, :3] < 0).all())


def test_energy_outside_the_mask_may_be_anything() -> None:
    rewards_B, groups_B, valid_B = torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.int64), torch.ones(2).bool()
    mask_BT = torch.tensor([[False, True], [False, True]])
    energy_BT = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]])
    got = token_baseline_advantages(rewards_B, groups_B, valid_B, mask_BT, energy_BT)
    assert got.tolist() == [[0, pytest.approx(0.5)], [0, pytest.approx(-0.5)]]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int]) -> None:
    rows = shape[0]
    got = token_baseline_advantages(
        torch.arange(rows).float(), torch.zeros(rows, dtype=torch.int64), torch.ones(rows).bool(),
        torch.ones(shape).bool(), torch.ones(shape),
    )  # fmt: skip
    assert got.shape == shape
