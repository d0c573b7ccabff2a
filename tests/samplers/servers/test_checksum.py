"""The sampled checksum: the same for the same values wherever they lie, another one for what goes wrong with weights."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.samplers.servers.checksum import SAMPLES, sampled_checksum

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.float8_e4m3fn]


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (7, 5), (40, 30, 2), (SAMPLES + 1,)])
def test_it_depends_on_values_only(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    value = drawn(*shape, dtype=dtype)
    wanted = sampled_checksum(value)
    assert sampled_checksum(value.clone()) == wanted and 0 <= wanted < 2**32
    if value.ndim == 2:
        strided = value.t().contiguous().t()
        assert value.numel() == 0 or not strided.is_contiguous()
        assert sampled_checksum(strided) == wanted
    assert sampled_checksum(value.requires_grad_() if dtype.is_floating_point else value) == wanted


def test_dtype_and_shape_count() -> None:
    value = torch.zeros(8, 4)
    others = [value.view(4, 8), value.view(torch.int32), value[:, :3], value.bfloat16(), torch.zeros(0, 4), torch.zeros(4, 0)]
    sums = [sampled_checksum(one) for one in (value, *others)]
    assert len(set(sums)) == len(sums)


def test_every_element_of_a_small_tensor_is_read() -> None:
    value = drawn(SAMPLES // 4, 4)
    wanted = sampled_checksum(value)
    for place in (0, 1, 511, SAMPLES - 1):
        changed = value.clone()
        changed.view(-1)[place] = torch.nextafter(changed.view(-1)[place], torch.tensor(9.0))
        assert sampled_checksum(changed) != wanted, place


@pytest.mark.parametrize("side", [256, 300, 1024])
def test_a_row_or_column_of_another_version_is_mostly_seen(side: int) -> None:
    """Also where the width is a power of two, at which even steps would read the same columns only."""
    value = drawn(side, side)
    wanted = sampled_checksum(value)
    seen = []
    for dim in (0, 1):
        for start in range(0, side - side // 8 + 1, side // 8):
            changed = value.clone()
            changed.narrow(dim, start, side // 8).add_(1e-6)
            seen.append(sampled_checksum(changed) != wanted)
    assert all(seen)


def test_first_and_last_element_are_read() -> None:
    value = drawn(777, 333)
    for place in (0, -1):
        changed = value.clone()
        changed.view(-1)[place] += 1
        assert sampled_checksum(changed) != sampled_checksum(value)


def test_not_a_number_and_signed_zero_are_bits_like_others() -> None:
    assert sampled_checksum(torch.tensor([0.0])) != sampled_checksum(torch.tensor([-0.0]))
    assert sampled_checksum(torch.tensor([float("nan")])) == sampled_checksum(torch.tensor([float("nan")]))


@pytest.mark.gpu
def test_the_device_does_not_matter() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        value = drawn(1000, 40, dtype=dtype)
        assert sampled_checksum(value.cuda()) == sampled_checksum(value)
