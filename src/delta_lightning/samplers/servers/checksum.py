"""A cheap checksum of a tensor: the bits of some of its elements, the same ones wherever it is computed."""

from __future__ import annotations

import zlib
from functools import lru_cache

import torch
from torch import Tensor

SAMPLES = 1024  # elements of a tensor that are read
_GOLDEN, _WORD = 2654435769, 32  # the golden ratio times 2**32: its multiples fill an interval evenly


def sampled_checksum(tensor: Tensor) -> int:
    """CRC-32 of dtype, shape, and the bits of up to `SAMPLES` elements spread over the tensor, first and last among them.

    It depends on values, dtype and shape only, not on device, strides or the tensor's neighbours. Two tensors that differ in a
    part of p of their elements have the same checksum with a probability of about (1 - p) ** SAMPLES: a tensor of another
    version, another layer's, or one cut short is seen; a single wrong element mostly is not.

    Args:
        tensor: of any dtype and shape, also empty.
    """
    value = tensor.detach()
    head = zlib.crc32(f"{value.dtype}{tuple(value.shape)}".encode())
    if value.numel() == 0:
        return head
    places = _places(value.numel()).to(value.device)
    sample = value[torch.unravel_index(places, value.shape)] if value.ndim else value.reshape(1)
    return zlib.crc32(sample.contiguous().view(torch.uint8).cpu().numpy().tobytes(), head)


@lru_cache(maxsize=256)
def _places(numel: int) -> Tensor:
    """Which elements are read: all of a small tensor. Not one in so many, or a matrix would show the same columns only."""
    if numel <= SAMPLES:
        return torch.arange(numel)
    spread = {(index * _GOLDEN % 2**_WORD) * numel >> _WORD for index in range(SAMPLES - 1)}
    return torch.tensor(sorted(spread | {numel - 1}))
