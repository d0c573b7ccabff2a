"""Plain data as JSON with tags, and back: all that crosses between a program and its judge.

None, bool, int, float and str are themselves (numbers that JSON cannot hold have a tag); everything else is a list that
begins with a tag. What a receiver builds from it are exact built-in types, checked one by one: whatever bytes a hostile
program sends, nothing is evaluated, nothing is unpickled, and no class of its own comes with it. What is no plain data (a
function, an object, an iterator) crosses as a handle, made and resolved by the two callables that each side passes in.
"""

from __future__ import annotations

import builtins
import json
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

MAX_DEPTH = 64  # nested containers; both ways
MAX_BYTES = 4 << 20  # of one message; a decoded one needs some 30 times as much
_BIG = 10_000  # bits; longer integers go as hexadecimal digits, which are read in linear time and without Python's digit limit
_HANDLE = "o"
_TYPES = {
    kind.__name__: kind for kind in (bool, bytes, complex, dict, float, frozenset, int, list, object, set, str, tuple, type)
}

Handle = list[Any]


class Refused(ValueError):  # noqa: N818 -- reads as what happened
    """A value that cannot be sent, or a message that is none."""


def dump(value: Any) -> bytes:
    """A JSON value (from `encode`) as bytes. Raises `Refused` beyond `MAX_BYTES`."""
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(data) > MAX_BYTES:
        raise Refused(f"a value of {len(data)} bytes, more than {MAX_BYTES}")
    return data


def load(data: bytes) -> Any:
    """The JSON value, to be given to `decode`. Raises `Refused` for anything else."""
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(f"no message: {type(error).__name__}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class Encoder:
    """Values to JSON values.

    Args:
        handle: makes the handle [id, description] of what is no plain data, or raises `Refused`.
    """

    def __init__(self, handle: Callable[[Any], Handle]) -> None:
        self._handle = handle
        self._left = MAX_BYTES

    def __call__(self, value: Any) -> Any:
        """Raises `Refused`: nested too deep (or in itself), too large, or refused by `handle`."""
        self._left = MAX_BYTES
        return self._encode(value, 0)

    def _encode(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Refused(f"a value nested deeper than {MAX_DEPTH}")
        kind = type(value)
        self._left -= len(value) if kind is str or kind is bytes or kind is bytearray else 4
        if self._left < 0:
            raise Refused(f"a value of more than {MAX_BYTES} bytes")
        if value is None or kind is bool or kind is str:
            return value
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(value)
        container = _CONTAINERS.get(kind)
        if container is not None:
            tag, parts = container
            return [tag, *(self._encode(part, depth + 1) for part in parts(value))]
        return self._other(value, depth)

    def _other(self, value: Any, depth: int) -> Any:
        """A subclass of a built-in goes as the value that it holds, by the built-in's own methods; the rest as a handle."""
        kind = type(value)
        if kind is type and any(value is known for known in _TYPES.values()):
            return ["T", value.__name__]
        for base, plain in _PLAIN:
            if base in type.mro(kind):
                return self._encode(plain(value), depth)
        return [_HANDLE, *self._handle(value)]


class Decoder:
    """JSON values to values, each of an exact built-in type.

    Args:
        resolve: what a handle [id, description] stands for; raises `Refused` for one that it does not know.
    """

    def __init__(self, resolve: Callable[[Handle], Any]) -> None:
        self._resolve = resolve

    def __call__(self, data: Any) -> Any:
        """Raises `Refused` for what `Encoder` cannot have made."""
        try:
            return self._decode(data, 0)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, InvalidOperation) as error:
            raise error if type(error) is Refused else Refused(f"no value: {type(error).__name__}") from None

    def _decode(self, data: Any, depth: int) -> Any:
        if type(data) is not list:
            if type(data) is dict:
                raise Refused("no value: an object")
            return data
        if depth > MAX_DEPTH:
            raise Refused(f"a value nested deeper than {MAX_DEPTH}")
        tag, *rest = data
        if tag == _HANDLE:
            return self._resolve(rest)
        if tag in _READ_SCALARS:
            return _READ_SCALARS[tag](*rest)
        return _READ_CONTAINERS[tag]([self._decode(part, depth + 1) for part in rest])


# Numbers and other values without parts -----------------------------------------------------------------------------------


def _int(value: int) -> Any:
    return value if value.bit_length() <= _BIG else ["i", hex(value)]


def _float(value: float) -> Any:
    return value if value - value == 0 else ["f", repr(value)]


def _special(text: str) -> float:
    return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[text]


def _complex(value: complex) -> Any:
    return ["c", repr(value.real), repr(value.imag)]


def _hex_int(text: str) -> int:
    return int(text, 16)


def _type(name: str) -> type:
    return _TYPES[name]


_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    complex: _complex,
    bytes: lambda value: ["b", value.hex()],
    bytearray: lambda value: ["B", value.hex()],
    range: lambda value: ["r", *map(_int, (value.start, value.stop, value.step))],
    Decimal: lambda value: ["N", str(value)],
    Fraction: lambda value: ["F", hex(value.numerator), hex(value.denominator)],
    date: lambda value: ["date", value.isoformat()],
    datetime: lambda value: ["datetime", value.isoformat()],
    time: lambda value: ["time", value.isoformat()],
    timedelta: lambda value: ["timedelta", value.days, value.seconds, value.microseconds],
    type(NotImplemented): lambda value: ["K", "NotImplemented"],
    type(...): lambda value: ["K", "Ellipsis"],
}
_READ_SCALARS: dict[Any, Callable[..., Any]] = {
    "i": _hex_int,
    "f": _special,
    "c": lambda real, imag: complex(float(real), float(imag)),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "r": lambda start, stop, step: range(_whole(start), _whole(stop), _whole(step)),
    "N": Decimal,
    "F": lambda numerator, denominator: Fraction(_hex_int(numerator), _hex_int(denominator)),
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": timedelta,
    "T": _type,
    "K": lambda name: {"NotImplemented": NotImplemented, "Ellipsis": ...}[name],
}


def _whole(data: Any) -> int:
    return data if type(data) is int else _hex_int(data[1])


# Containers ---------------------------------------------------------------------------------------------------------------


def _flat(value: dict[Any, Any]) -> Any:
    return (part for item in dict.items(value) for part in item)


def _pairs(parts: list[Any]) -> Any:
    return zip(parts[::2], parts[1::2], strict=True)


_CONTAINERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    list: ("l", list.__iter__),
    tuple: ("t", tuple.__iter__),
    set: ("s", set.__iter__),
    frozenset: ("fs", frozenset.__iter__),
    dict: ("d", _flat),
    Counter: ("C", _flat),
    OrderedDict: ("O", _flat),
    defaultdict: ("D", _flat),
    deque: ("q", lambda value: (value.maxlen, *value)),
    array: ("a", lambda value: (value.typecode, *value)),
    type({}.keys()): ("dk", iter),
    type({}.values()): ("dv", iter),
    type({}.items()): ("di", lambda value: (part for item in value for part in item)),
}
_READ_CONTAINERS: dict[Any, Callable[[list[Any]], Any]] = {
    "l": lambda parts: parts,
    "t": tuple,
    "s": set,
    "fs": frozenset,
    "d": lambda parts: dict(_pairs(parts)),
    "C": lambda parts: Counter(dict(_pairs(parts))),
    "O": lambda parts: OrderedDict(_pairs(parts)),
    "D": lambda parts: defaultdict(None, _pairs(parts)),
    "q": lambda parts: deque(parts[1:], parts[0]),
    "a": lambda parts: array(parts[0], parts[1:]),
    "dk": lambda parts: dict.fromkeys(parts).keys(),
    "dv": lambda parts: dict(enumerate(parts)).values(),
    "di": lambda parts: dict(_pairs(parts)).items(),
}
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: int.__add__(value, 0)),
    (float, float.__pos__),
    (str, str.__str__),
    (list, lambda value: list.__getitem__(value, slice(None))),
    (tuple, lambda value: tuple.__getitem__(value, slice(None))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)

BUILTIN_ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, StopIteration | StopAsyncIteration)
}
