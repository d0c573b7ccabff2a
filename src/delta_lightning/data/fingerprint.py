"""A checksum of the training prompts, by which a resumed run sees that its data changed, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError
from delta_lightning.types import Prompt

BLOCKS = 65536  # most numbers kept: 330 KB of a checkpoint
SAMPLES = 4096  # rows looked at where rows are read as they are drawn
BITS = 32


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the training prompts were, in their order.

    The digest of prompt i is d_i = SHA-256(i, id, source, token ids, reference), the reference as JSON with sorted keys.
    `checksum` is SHA-256(d_0 d_1 ...). Block b holds the sum of the first 32 bits of its prompts' digests, modulo 2^32; blocks
    are 2^k prompts long, with the smallest k for which there are at most 65,536 of them, so that up to as many prompts a
    difference is known to the prompt. Blocks of two lengths compare after the shorter ones are added in pairs.

    Attributes:
        count: prompts; rows where they are read as they are drawn. stride: every which of them was looked at; 1: all.
        checksum: hexadecimal. size: prompts that were looked at in a block. blocks: their sums.
    """

    count: int
    checksum: str
    stride: int = 1
    size: int = 1
    blocks: tuple[int, ...] = ()

    @classmethod
    def of(cls, prompts: Iterable[Prompt | None], *, count: int, stride: int = 1) -> Fingerprint:
        """Of the prompts in order; None stands for a row that cannot be used."""
        whole, blocks = hashlib.sha256(), list[int]()
        for index, prompt in enumerate(prompts):
            digest = _digest(index, prompt)
            whole.update(digest)
            blocks.append(int.from_bytes(digest[: BITS // 8], "big"))
        size = 1
        while len(blocks) > BLOCKS:
            blocks, size = _in_pairs(blocks), 2 * size
        return cls(count=count, checksum=whole.hexdigest(), stride=stride, size=size, blocks=tuple(blocks))

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint that is read with `weights_only=True`."""
        return {"count": self.count, "checksum": self.checksum, "stride": self.stride, "size": self.size,
                "blocks": list(self.blocks)}  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Fingerprint:
        """The inverse of `state`."""
        return cls(**{**state, "blocks": tuple(state["blocks"])})

    def same(self, other: Fingerprint) -> bool:
        """True for the same prompts in the same order."""
        return (self.count, self.stride, self.checksum) == (other.count, other.stride, other.checksum)

    def first_difference(self, other: Fingerprint) -> tuple[int, int] | None:
        """(first, last) number of the block of prompts in which the two first differ; None if one begins with the other.

        Also None where they looked at different rows, which tells nothing.
        """
        if self.stride != other.stride:
            return None
        mine, theirs, size = list(self.blocks), list(other.blocks), max(self.size, other.size)
        for blocks, own in ((mine, self.size), (theirs, other.size)):
            while own < size:
                blocks[:], own = _in_pairs(blocks), 2 * own
        for block, pair in enumerate(zip(mine, theirs, strict=False)):
            if pair[0] != pair[1]:
                first = block * size * self.stride
                return first, min(first + size * self.stride, max(self.count, other.count)) - 1
        return None


def data_changed(before: Fingerprint, now: Fingerprint, name: Callable[[int], str]) -> ConfigError | None:
    """What to raise where the data are not those of the checkpoint's run; None if they are.

    Args:
        before: of the checkpoint. now: of this run. name: number of a prompt of this run -> its id.
    """
    if now.same(before):
        return None
    where = now.first_difference(before)
    if where is not None:
        first, last = where
        found = (
            f"first difference at prompt {first + 1:,}" if first == last else f"first between {first + 1:,} and {last + 1:,}"
        )
        if first < now.count:
            found += f", here {name(first)!r}"
    elif now.stride == before.stride and now.count != before.count:
        found = f"the first {min(now.count, before.count):,} are the same"
    else:
        found = "other rows"
    return ConfigError(
        "data", wanted=f"the {before.count:,} training prompts of the checkpoint's run", got=f"{now.count:,} prompts; {found}",
        remedy="Set data, template and tokenizer back; or begin a new run from an export of the checkpoint; or go on with the "
        "present data, at the old position in their order, with --data.accept_changed=true.",
    )  # fmt: skip


def _digest(index: int, prompt: Prompt | None) -> bytes:
    if prompt is None:
        return hashlib.sha256(f"{index}".encode()).digest()
    fields = [index, prompt.id, prompt.source, list(prompt.token_ids), prompt.reference]
    text = json.dumps(fields, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).digest()


def _plain(value: Any) -> Any:
    """What JSON has no form for: mappings that are no dict, dates, arrays."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def _in_pairs(blocks: list[int]) -> list[int]:
    return [sum(blocks[start : start + 2]) % 2**BITS for start in range(0, len(blocks), 2)]
