"""One rollout step: the same numbers however it is cut, into micro-batches, chunks, caches or ranks."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import RunError
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.types import Completion, Prompt, Status, Verdict
from support.engines import parity
from support.models import tiny_model
from support.steps import StepSetup, by_sequence, gradients, make_buffer, outcome
from support.world import run_ranks

F32, F64 = torch.float32, torch.float64
CUTS = {
    "plain": {},
    "one micro-batch": {"micro": 1},
    "many, some empty": {"micro": 23},
    "head in small chunks": {"head_budget": 4 * 64 * 3},
    "no cache": {"cache": HiddenCache(device_gib=0, host_gib=0)},
}


def assert_same(got: object, want: object, dtype: torch.dtype) -> None:
    (credit_a, grads_a, losses_a), (credit_b, grads_b, losses_b) = got, want
    tolerance = 1e-5 if dtype is F32 else 1e-10
    assert credit_a.keys() == credit_b.keys()
    for key, values in credit_a.items():
        assert values == pytest.approx(credit_b[key], abs=tolerance if dtype is F32 else 1e-12)
    for a, b in zip(grads_a, grads_b, strict=True):
        for name in a:
            assert float((a[name] - b[name]).abs().max() / b[name].abs().max()) < tolerance, name
    assert losses_a == pytest.approx(losses_b, abs=tolerance)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_cut_does_not_matter(family: str, dtype: torch.dtype) -> None:
    want = outcome(family, dtype)
    assert max(abs(g).max() for g in want[1][0].values()) > 1e-3, "no gradient, no test"
    for name, changes in CUTS.items():
        print(name)
        assert_same(outcome(family, dtype, **changes), want, dtype)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_do_not_matter(size: int) -> None:
    want = outcome("qwen3", F64)
    parts = run_ranks(size, outcome, "qwen3", F64)
    merged = {key: value for part in parts for key, value in part[0].items()}
    assert sum(len(part[0]) for part in parts) == len(merged), "a sequence on two ranks"
    for part in parts:
        assert_same((merged, part[1], part[2]), want, F64)


def test_first_ratio_is_exactly_one() -> None:
    for family in ("qwen3", "olmo3"):
        setup = StepSetup(micro=3)
        model = tiny_model(family)
        buffer = make_buffer(model, setup)
        for index in range(6):
            experience = buffer.micro_batch(index).experience
            scores = setup.scorer(model).score(experience.batch, frozenset())
            assert torch.equal(scores.logprobs_BT.detach(), experience.old_logprobs_BT)


def test_gradient_of_one_update_is_the_closed_form() -> None:
    """sum over tokens of -lambda_bar A grad log p, divided by the number of tokens."""
    setup = StepSetup(updates=1, micro=3)
    model = tiny_model(dtype=F64)
    buffer = make_buffer(model, setup)
    [got], _ = gradients(model, buffer, setup)
    model.zero_grad()
    batch, credit = buffer.experience.batch, by_sequence(buffer)
    total = 0.0
    for row in range(batch.num_sequences):
        length = int(batch.attention_mask_BT[row].sum())
        ids, mask = batch.token_ids_BT[row, :length], batch.loss_mask_BT[row, 1:length]
        log_p = torch.log_softmax(model(input_ids=ids[None, :-1], use_cache=False).logits[0], -1)
        log_p = log_p.gather(1, ids[1:, None])[:, 0][mask]
        weights = torch.tensor(credit[int(batch.sequence_ids_B[row])], dtype=F64)
        total = total - (weights * buffer.experience.advantages[row].double() * log_p).sum()
    (total / batch.loss_mask_BT.sum()).backward()
    for name, parameter in model.named_parameters():
        assert float((got[name] - parameter.grad).abs().max() / parameter.grad.abs().max()) < 1e-10, name


def test_equal_bounds_are_exactly_uniform() -> None:
    a, b = outcome("qwen3", F32, credit=Delta(low=0.9, high=0.9)), outcome("qwen3", F32, credit=Uniform())
    assert a[0] == b[0] and a[2] == b[2]
    assert all(torch.equal(x[name], y[name]) for x, y in zip(a[1], b[1], strict=True) for name in x)


def test_credit_is_not_uniform_and_has_mean_one() -> None:
    credit = [c for values in outcome("qwen3", F64)[0].values() for c in values]
    assert sum(credit) / len(credit) == pytest.approx(1.0, abs=1e-12)
    assert max(credit) > 1.05 and min(credit) < 0.95


def wrong(prompt: Prompt, completion: Completion) -> Verdict:
    return Verdict(status=Status.INCORRECT, reward=0.0)


def test_all_equal_rewards_give_a_loss_of_zero_and_no_nan() -> None:
    credit, grads, losses = outcome("qwen3", F32, judge=wrong)
    assert all(value == 1.0 for values in credit.values() for value in values)
    assert losses == [0.0, 0.0]
    assert all(torch.equal(g, torch.zeros_like(g)) for one in grads for g in one.values())


def sometimes_broken(prompt: Prompt, completion: Completion) -> Verdict:
    broken = completion.sample_index == 0 or (prompt.id == "p1" and completion.sample_index < 3)
    return Verdict(status=Status.ERROR, reward=5.0, reason="disk gone") if broken else parity(prompt, completion)


def test_errors_leave_the_batch_and_lonely_groups_with_them() -> None:
    setup = StepSetup(judge=sometimes_broken, policy=VerdictPolicy(max_error_share=0.5))
    book = MetricBook()
    batch = make_buffer(tiny_model(), setup, book).experience.batch
    for row in range(batch.num_sequences):
        group, index = divmod(int(batch.sequence_ids_B[row]), 4)
        out = index == 0 or group == 1  # of group 1 a single verdict is left
        assert bool(batch.loss_mask_BT[row].any()) is not out
        assert bool(batch.valid_B[row]) is not out
        assert float(batch.rewards_B[row]) in (0.0, 1.0), "the 5.0 of an error is no reward"
    values = book.take(Ranks())
    assert values["verdict/error_share"] == pytest.approx(10 / 32)


def test_too_many_errors_stop_the_run_with_their_causes() -> None:
    with pytest.raises(RunError, match=r"failed on 10 of 32 completions.*p0: disk gone"):
        make_buffer(tiny_model(), StepSetup(judge=sometimes_broken))


def test_timeouts_earn_what_the_policy_says() -> None:
    def slow(prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.TIMEOUT, reward=0.0) if completion.sample_index == 0 else parity(prompt, completion)

    batch = make_buffer(tiny_model(), StepSetup(judge=slow, policy=VerdictPolicy(timeout=-0.5))).experience.batch
    first = batch.sequence_ids_B % 4 == 0
    assert batch.rewards_B[first].tolist() == [-0.5] * 8 and bool(batch.valid_B.all())
