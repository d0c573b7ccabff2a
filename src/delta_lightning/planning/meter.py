"""Bytes of live tensors, now and at their peak: of real tensors, and of those that have shapes only (`FakeTensorMode`)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make while it is entered, until they are freed.

    Each storage counts once, whatever views there are of it, backward passes included. What a kernel allocates and frees
    within one operation is not seen, nor is what an allocator keeps for later.

    Args:
        known: tensors that were there before, such as parameters: views of them are not counted.

    Attributes:
        live: bytes now. peak: the most so far; set it to `live` to begin anew.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._counted: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in known:
            for storage in _storages(tensor):
                self._known[storage._cdata] = weakref.ref(storage, self._forgotten(storage._cdata))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation, then counts what it made."""
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                for storage in _storages(value):
                    self._count(storage)
        return out

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors that are there already, from now on until they are freed."""
        for tensor in tensors:
            for storage in _storages(tensor):
                self._count(storage)

    def restart(self) -> int:
        """The peak so far; the next one counts from what is live now."""
        before, self.peak = self.peak, self.live
        return before

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted or key in self._known:
            return
        self._counted[key] = weakref.ref(storage, self._freed(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            self.live -= size
            del self._counted[key]

        return gone

    def _forgotten(self, key: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            del self._known[key]

        return gone


def _storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    """The storages behind a tensor, those of the parts of a sharded one."""
    value: Any = tensor
    if not is_traceable_wrapper_subclass(value):
        return [tensor.untyped_storage()]
    names, _ = value.__tensor_flatten__()
    parts = [getattr(value, name) for name in names]  # a sharded tensor's mesh is one
    return [storage for part in parts if isinstance(part, Tensor) for storage in _storages(part)]
