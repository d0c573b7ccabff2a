"""Keyed draws: the same for the same keys, and uniform."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.functional import random
from delta_lightning.functional.random import keyed_uniform, mix64, stable_hash


def reference_mix(value: int) -> int:
    """SplitMix64's finaliser in Python integers."""
    mask = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mixer_equals_splitmix64() -> None:
    values = [0, 1, 12345, 2**62, -1, -(2**63)]
    got = mix64(torch.tensor(values)).tolist()
    assert [g % 2**64 for g in got] == [reference_mix(v % 2**64) for v in values]
    assert mix64(torch.tensor([0])).item() % 2**64 == 0xE220A8397B1DCDAF  # first output of SplitMix64 from seed 0


def test_draws_depend_on_keys_and_counters_only() -> None:
    keys = torch.tensor([5, 9, -3])
    wide = keyed_uniform(keys, torch.arange(10))
    assert torch.equal(wide[1:2, 4:7], keyed_uniform(keys[1:2], torch.arange(4, 7)))
    assert wide.unique().numel() == 30


def test_draws_are_uniform_and_uncorrelated() -> None:
    u = keyed_uniform(torch.arange(500), torch.arange(400))
    assert u.min() > 0 and u.max() < 1
    counts = torch.histc(u, bins=20, min=0, max=1)
    expected = u.numel() / 20
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 43.8  # 99.9 % quantile of chi-square with 19 degrees of freedom
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.01


def test_the_extreme_draws_are_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (-1, 0):  # all bits set, none set
        monkeypatch.setattr(random, "mix64", lambda value, bits=bits: torch.full_like(value, bits))
        assert 0.0 < keyed_uniform(torch.tensor([1]), torch.tensor([0])).item() < 1.0


def test_hash_is_stable_and_typed() -> None:
    assert stable_hash("a", 1) == stable_hash("a", 1)
    assert len({stable_hash("a", 1), stable_hash("a", "1"), stable_hash("a1"), stable_hash(1, "a")}) == 4
    assert 0 <= stable_hash("x") < 2**63
    assert stable_hash("delta", 7) == 7872239046894444739, "a change of hash changes every seeded run"
