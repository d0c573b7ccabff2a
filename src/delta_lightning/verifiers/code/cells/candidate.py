"""The program under test, alone in its cell: it answers calls and never sees a test.

The judge asks, one message at a time, and every answer is a value or an error. Nothing here needs to be trusted: a hostile
program may rewrite all of it, and can still only send bytes that the judge reads as plain data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

try:
    from frames import Channel, Closed  # type: ignore[import-not-found]
    from literals import Decoder, Encoder, Handle, Refused  # type: ignore[import-not-found]
except ImportError:
    from delta_lightning.verifiers.code.cells.frames import Channel, Closed
    from delta_lightning.verifiers.code.cells.literals import Decoder, Encoder, Handle, Refused

_MAX_MESSAGE = 2000  # characters of an exception's text
_DO: dict[str, Callable[[Any], Any]] = {"iter": iter, "len": len, "bool": bool, "str": str, "repr": repr}


def serve(descriptors: list[int], argument: bytes) -> None:
    """Run the program (`argument`, UTF-8) and answer the judge on the first descriptor until it hangs up."""
    channel = Channel(descriptors[0])
    program = ModuleType("solution")  # a real module: dataclasses and typing look their names up there
    sys.modules["solution"] = program
    try:
        try:
            exec(compile(argument, "solution.py", "exec", dont_inherit=True), vars(program))
        except BaseException as error:  # noqa: BLE001 -- SystemExit too: reported to the judge
            channel.send(described(error))
            return
        channel.send(["v", None])
        Answers(channel, vars(program)).serve()
    except Closed:
        pass


class Answers:
    """What the judge may ask for, by the first word of its message."""

    def __init__(self, channel: Channel, names: dict[str, Any]) -> None:
        self._channel = channel
        self._names = names
        self._held: list[Any] = []  # kept as long as the program lives, so that an id means one thing
        self._ids: dict[int, int] = {}
        self._encode = Encoder(self._handle)
        self._decode = Decoder(self._resolve)

    def serve(self) -> None:
        """Answer until the judge hangs up."""
        while True:
            message = self._channel.receive()
            try:
                answer = ["v", *getattr(self, f"on_{message[0]}")(*message[1:])]
            except Closed:
                raise
            except BaseException as error:  # noqa: BLE001 -- reported to the judge
                answer = described(error)
            try:
                self._channel.send(answer)
            except Refused as error:
                self._channel.send(described(error))

    def on_names(self, wanted: list[str]) -> list[Any]:
        """[[name, value], ...] of those that the program has. Its imported modules are left to the judge."""
        found = [[name, self._names[name]] for name in wanted if name in self._names]
        return [[[name, self._encode(value)] for name, value in found if type(value) is not ModuleType]]

    def on_call(self, target: Any, positional: Any, named: Any) -> list[Any]:
        """The result and, where the call changed them, the arguments as it left them."""
        arguments = (self._decode(positional), self._decode(named))
        result = self._encode(self._decode(target)(*arguments[0], **arguments[1]))
        if not any(type(part) is list for part in (*positional[1:], *named[2::2])):
            return [result]
        after = [self._encode(arguments[0]), self._encode(arguments[1])]
        return [result] if repr(after) == repr([positional, named]) else [result, *after]  # == would not tell 1 from True

    def on_get(self, target: Any, name: str) -> list[Any]:
        """An attribute."""
        return [self._encode(getattr(self._decode(target), name))]

    def on_set(self, target: Any, name: str, value: Any) -> list[Any]:
        """Set an attribute."""
        setattr(self._decode(target), name, self._decode(value))
        return [None]

    def on_item(self, target: Any, key: Any) -> list[Any]:
        """An item."""
        return [self._encode(self._decode(target)[self._decode(key)])]

    def on_do(self, name: str, target: Any) -> list[Any]:
        """A built-in function of one argument; `next` answers [value], or [] at the end."""
        value = self._decode(target)
        if name == "next":
            try:
                return [["l", self._encode(next(value))]]
            except StopIteration:
                return [["l"]]
        return [self._encode(_DO[name](value))]

    def _handle(self, value: Any) -> Handle:
        if type(value) is Callback:
            return ["j", value.number, ""]
        if id(value) not in self._ids:
            self._ids[id(value)] = len(self._held)
            self._held.append(value)
        return ["p", self._ids[id(value)], type(value).__name__[:80]]

    def _resolve(self, handle: Handle) -> Any:
        owner, number, _ = handle
        return self._held[number] if owner == "p" else Callback(self, number)

    def call_back(self, number: int, positional: Any, named: Any) -> Any:
        """Ask the judge to call a function that a test passed in."""
        self._channel.send(["back", number, self._encode(positional), self._encode(named)])
        while True:  # the function may itself call the program
            message = self._channel.receive()
            if message[0] == "returned":
                return self._decode(message[1])
            if message[0] == "raised":
                raise RuntimeError(str(message[1]))
            answer = getattr(self, f"on_{message[0]}")(*message[1:])
            self._channel.send(["v", *answer])


class Callback:
    """A test's function, in the program's hands."""

    def __init__(self, answers: Answers, number: int) -> None:
        self._answers = answers
        self.number = number

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call it, in the judge's cell."""
        return self._answers.call_back(self.number, positional, named)


def described(error: BaseException) -> list[Any]:
    """An error as the names of its class and bases, and its text, both cut."""
    names = [kind.__name__ for kind in type.mro(type(error))][:20]
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 -- an exception whose text cannot be made
        text = ""
    return ["x", [name[:80] for name in names if type(name) is str], text[:_MAX_MESSAGE] if type(text) is str else ""]
