"""Random numbers keyed by what they are for, never by the order in which they are drawn.

A draw is a pure function of its keys (seed, step, prompt id, sample index, position, purpose), so a resumed run needs no
generator state, and any number of ranks and any batch composition draws the same numbers. The mixer is the finaliser of
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), in wrapping int64.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # hashes are needed where torch is not: reading a data set
    from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_UNIT = 2.0**-52


def stable_hash(*keys: str | int) -> int:
    """A 63-bit hash of strings and integers, the same in every process and version of Python (BLAKE2b)."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _shift_right(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts keep the sign; the mask makes them logical


def mix64(value: Tensor) -> Tensor:
    """SplitMix64's finaliser, elementwise on int64: a bijection whose output bits look independent."""
    value = value + _GAMMA
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def keyed_uniform(keys_B: Tensor, counters: Tensor) -> Tensor:
    """Uniform numbers in the open interval (0, 1), float64, one for each (key, counter).

    Args:
        keys_B: int64 [B]. counters: int64 [T]; the result is [B, T].
    """
    # Each key seeds a SplitMix64 stream of its own; xor of two mixed values would be symmetric in key and counter.
    mixed = mix64(mix64(keys_B)[:, None] + counters * _GAMMA)
    # 52 bits: with 53 the largest value plus a half would round up to 1.
    return (_shift_right(mixed, 12).double() + 0.5) * _UNIT
