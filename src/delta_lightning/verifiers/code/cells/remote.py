"""The program's objects in the judge's hands: each use is a message to the program's cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

try:
    from frames import Channel, Closed  # type: ignore[import-not-found]
    from literals import BUILTIN_ERRORS, Decoder, Encoder, Handle, Refused  # type: ignore[import-not-found]
except ImportError:
    from delta_lightning.verifiers.code.cells.frames import Channel, Closed
    from delta_lightning.verifiers.code.cells.literals import BUILTIN_ERRORS, Decoder, Encoder, Handle, Refused


_MOST = 32 << 20  # bytes of all answers of a program: decoded, they must fit the judge's memory whatever they hold
_MUTABLE = (list, dict, set, bytearray, deque)


class ProgramFault(BaseException):
    """The program ended, or broke the protocol. No test can catch it by accident: it is no `Exception`."""


class Link:
    """The judge's end of the conversation with the program."""

    def __init__(self, descriptor: int) -> None:
        self._channel = Channel(descriptor)
        self._functions: list[Callable[..., Any]] = []  # a test's functions in the program's hands
        self._encode = Encoder(self._handle)
        self._decode = Decoder(self._resolve)

    def loaded(self) -> str | None:
        """Wait until the program has run once; None, or the error with which it ended."""
        kind, *rest = self._receive()
        if kind == "v":
            return None
        if kind == "back":
            raise ProgramFault("broke the protocol: a call before the program has run")
        names, text = rest
        return f"{names[0]}: {text}"

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """Those of the program's names that are wanted and there."""
        (pairs,) = self._ask("names", wanted)
        try:
            return {name: self._decode(value) for name, value in pairs if name in wanted}
        except (TypeError, ValueError) as error:
            raise ProgramFault(f"broke the protocol: {error}") from None

    def call(self, target: Remote, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call; mutable arguments are afterwards what the program made of them."""
        result, *after = self._ask("call", self._encode(target), self._encode(positional), self._encode(named))
        if after:
            changed_positional, changed_named = (self._value(part) for part in after)
            _update(positional, changed_positional)
            _update(named, changed_named)
        return self._value(result)

    def get(self, target: Remote, name: str) -> Any:
        """An attribute."""
        return self._value(*self._ask("get", self._encode(target), name))

    def set(self, target: Remote, name: str, value: Any) -> None:
        """Set an attribute."""
        self._ask("set", self._encode(target), name, self._encode(value))

    def item(self, target: Remote, key: Any) -> Any:
        """An item."""
        return self._value(*self._ask("item", self._encode(target), self._encode(key)))

    def do(self, name: str, target: Remote) -> Any:
        """`iter`, `next`, `len`, `bool`, `str` or `repr` of it."""
        return self._value(*self._ask("do", name, self._encode(target)))

    def _ask(self, *message: Any) -> list[Any]:
        """The parts of the answer; raises the program's error as the built-in exception that it is a kind of."""
        try:
            self._channel.send(list(message))
        except Closed:
            raise ProgramFault("the program ended") from None
        while True:
            kind, *rest = self._receive()
            if kind == "v":
                return rest
            if kind == "x":
                raise _error(*rest)
            self._call_back(*rest)

    def _receive(self) -> list[Any]:
        """An answer whose shape is right."""
        try:
            message = self._channel.receive()
        except Closed:
            raise ProgramFault("the program ended") from None
        except Refused as error:
            raise ProgramFault(f"broke the protocol: {error}") from None
        if self._channel.received > _MOST:
            raise ProgramFault(f"the program has sent more than {_MOST} bytes")
        if type(message) is list and message:
            if message[0] == "v" and 1 < len(message) < 5:
                return message
            if message[0] == "x" and len(message) == 3 and type(message[2]) is str and _is_names(message[1]):
                return message
            if message[0] == "back" and len(message) == 4 and type(message[1]) is int:
                return message
        raise ProgramFault("broke the protocol")

    def _call_back(self, number: int, positional: Any, named: Any) -> None:
        if not 0 <= number < len(self._functions):
            raise ProgramFault("broke the protocol: no such function")
        arguments, keywords = self._value(positional), self._value(named)
        try:
            reply = ["returned", self._encode(self._functions[number](*arguments, **keywords))]
        except Exception as error:  # noqa: BLE001 -- the program's to handle, as where both live in one process
            reply = ["raised", f"{type(error).__name__}: {error}"[:2000]]
        self._channel.send(reply)

    def _value(self, data: Any) -> Any:
        try:
            return self._decode(data)
        except Refused as error:
            raise ProgramFault(f"broke the protocol: {error}") from None

    def _handle(self, value: Any) -> Handle:
        if type(value) is Remote:
            return ["p", object.__getattribute__(value, "_number"), ""]
        if not callable(value):
            raise Refused(f"a test passes a {type(value).__name__}, which is no plain data")
        if value not in self._functions:
            self._functions.append(value)
        return ["j", self._functions.index(value), ""]

    def _resolve(self, handle: Handle) -> Any:
        owner, number, kind = handle
        if type(number) is not int or number < 0 or type(kind) is not str:
            raise Refused("no handle")
        return Remote(self, number, kind) if owner == "p" else self._functions[number]


class Remote:
    """An object that lives in the program's cell: a function, a class, an instance, an iterator.

    Equal to itself and to nothing else: an `__eq__` of the program's own is never asked.
    """

    def __init__(self, link: Link, number: int, kind: str) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call it, in the program's cell."""
        return self._link.call(self, positional, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the judge's own libraries look for these; a program may answer anything
            raise AttributeError(name)
        return self._link.get(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.set(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._link.item(self, key)

    def __iter__(self) -> Iterator[Any]:
        iterator = self._link.do("iter", self)
        if type(iterator) is not Remote:
            raise ProgramFault("broke the protocol: no iterator")
        return iterator

    def __next__(self) -> Any:
        found = self._link.do("next", self)
        if type(found) is not list or len(found) > 1:
            raise ProgramFault("broke the protocol: no item")
        if not found:
            raise StopIteration
        return found[0]

    def __len__(self) -> int:
        length = self._link.do("len", self)
        if type(length) is not int:
            raise ProgramFault("broke the protocol: no length")
        return length

    def __bool__(self) -> bool:
        return self._link.do("bool", self) is True

    def __str__(self) -> str:
        return self._text("str")

    def __repr__(self) -> str:
        return self._text("repr")

    def _text(self, name: str) -> str:
        text = self._link.do(name, self)
        if type(text) is not str:
            raise ProgramFault("broke the protocol: no text")
        return text

    def __eq__(self, other: object) -> bool:
        return type(other) is Remote and object.__getattribute__(other, "_number") == self._number

    def __hash__(self) -> int:
        return hash(("Remote", self._number))


def _error(names: list[str], text: str) -> Exception:
    """The nearest built-in exception; RuntimeError where there is none, or where it is not made from a text."""
    kind = next((BUILTIN_ERRORS[name] for name in names if name in BUILTIN_ERRORS), RuntimeError)
    try:
        return kind(text)
    except TypeError:
        return RuntimeError(f"{names[0]}: {text}")


def _is_names(data: Any) -> bool:
    return type(data) is list and bool(data) and all(type(name) is str for name in data)


def _update(old: Any, new: Any) -> None:
    """Make the arguments of a call (a tuple, or a dictionary by name) what the program made of them, in place."""
    if type(old) is not type(new) or (old.keys() != new.keys() if type(old) is dict else len(old) != len(new)):
        raise ProgramFault("broke the protocol: other arguments than those of the call")
    for key in old if type(old) is dict else range(len(old)):
        if isinstance(old[key], _MUTABLE):
            if type(old[key]) is not type(new[key]):
                raise ProgramFault("broke the protocol: an argument of another type")
            _absorb(old[key], new[key])


def _absorb(old: Any, new: Any) -> None:
    """Make a container what it is in `new`, in place, and those inside it that are still of its shape, so that other names for
    them see it too; not those inside a tuple.
    """
    if type(old) is dict and list(old) == list(new):
        keys: Any = old
    elif type(old) is list and len(old) == len(new):
        keys = range(len(old))
    else:
        _replace(old, new)
        return
    for key in keys:
        if isinstance(old[key], _MUTABLE) and type(old[key]) is type(new[key]):
            _absorb(old[key], new[key])
        else:
            old[key] = new[key]


def _replace(old: Any, new: Any) -> None:
    if isinstance(old, list | bytearray):
        old[:] = new
        return
    old.clear()
    getattr(old, "extend" if isinstance(old, deque) else "update")(new)
