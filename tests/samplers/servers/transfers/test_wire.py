"""Tensors as bytes and back."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from delta_lightning.samplers.servers.transfers.wire import END, MOST_HEAD, frame, read_tensors

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.float8_e4m3fn]


def reading(data: bytes) -> Callable[[memoryview], None]:
    stream = io.BytesIO(data)

    def read_into(buffer: memoryview) -> None:
        if stream.readinto(buffer) != len(buffer):
            raise EOFError

    return read_into


def written(*tensors: tuple[str, Tensor]) -> bytes:
    return b"".join(bytes(part) for name, tensor in tensors for part in frame(name, tensor)) + END


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (4, 0, 2), (1,), (5, 3)])
def test_a_tensor_comes_back_bit_by_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    value = (torch.randn(shape) * 3).to(dtype)
    pairs = [("a.weight", value), ("b\N{GREEK SMALL LETTER DELTA}", value.t() if value.ndim == 2 else value)]
    read = list(read_tensors(reading(written(*pairs))))
    assert [name for name, _ in read] == [name for name, _ in pairs]
    for (_, got), (_, sent) in zip(read, pairs, strict=True):
        assert got.dtype == sent.dtype and got.shape == sent.shape
        assert got.contiguous().reshape(-1).view(torch.uint8).tolist() == sent.reshape(-1).view(torch.uint8).tolist()


def test_bits_that_are_no_numbers_survive() -> None:
    value = torch.tensor([float("nan"), float("inf"), -0.0])
    [(_, got)] = read_tensors(reading(written(("w", value))))
    assert torch.equal(got.view(torch.int32), value.view(torch.int32))


def test_each_tensor_has_memory_of_its_own() -> None:
    """A layer's tensors are held until it is complete."""
    first, second = (tensor for _, tensor in read_tensors(reading(written(("a", torch.ones(3)), ("b", torch.zeros(3))))))
    assert first.tolist() == [1, 1, 1] and first.data_ptr() != second.data_ptr()


def test_a_contiguous_tensor_is_not_copied() -> None:
    value = torch.zeros(8)
    _, elements = frame("w", value)
    value[0] = 1.0
    assert bytes(elements[:4]) == struct.pack("<f", 1.0)


def test_a_stream_of_something_else_or_without_an_end_is_seen() -> None:
    with pytest.raises(ValueError, match="no stream of weights"):
        list(read_tensors(reading(struct.pack(">I", MOST_HEAD + 1) + b"x" * 64)))
    with pytest.raises(ValueError, match="Expecting value"):
        list(read_tensors(reading(struct.pack(">I", 4) + b"<htm")))
    with pytest.raises(EOFError):
        list(read_tensors(reading(written(("w", torch.ones(9)))[:-6])))
