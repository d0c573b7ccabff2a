"""Tensors as bytes in a stream: four bytes of length, a JSON head with name, dtype and shape, then the elements, no pickles."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

MOST_HEAD = 1 << 20  # bytes of a head; more is no head
END = struct.pack(">I", 0)


def frame(name: str, tensor: Tensor) -> list[bytes | memoryview]:
    """The tensor's head and its elements; without a copy where it is contiguous and on the CPU."""
    value = tensor.detach().to("cpu").contiguous()
    dtype = str(value.dtype).removeprefix("torch.")
    head = json.dumps({"name": name, "dtype": dtype, "shape": list(value.shape)}).encode()
    elements = value.reshape(-1).view(torch.uint8) if value.numel() else torch.empty(0, dtype=torch.uint8)
    return [struct.pack(">I", len(head)) + head, elements.numpy().data]


def read_tensors(read_into: Callable[[memoryview], None]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a stream up to its end, each in memory of its own.

    Args:
        read_into: fills a buffer from the stream, or raises.

    Raises:
        ValueError: the stream is none of ours.
    """
    while length := struct.unpack(">I", _read(read_into, 4))[0]:
        if length > MOST_HEAD:
            raise ValueError(f"a head of {length} bytes: this is no stream of weights")
        head = json.loads(_read(read_into, length))
        tensor = torch.empty(head["shape"], dtype=getattr(torch, head["dtype"]))
        if tensor.numel():
            read_into(tensor.reshape(-1).view(torch.uint8).numpy().data)
        yield head["name"], tensor


def _read(read_into: Callable[[memoryview], None], length: int) -> bytes:
    data = bytearray(length)
    read_into(memoryview(data))
    return bytes(data)
