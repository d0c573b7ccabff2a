"""Messages over a socket between two cells: eight hexadecimal digits of length, then so many bytes."""

from __future__ import annotations

import os
from typing import Any

try:  # in a cell the drivers are modules of their own
    from literals import MAX_BYTES, Refused, dump, load  # type: ignore[import-not-found]
except ImportError:
    from delta_lightning.verifiers.code.cells.literals import MAX_BYTES, Refused, dump, load

_DIGITS = 8


class Closed(Exception):  # noqa: N818 -- the end of a conversation
    """The other side is gone, in the middle of a message or between two."""


class Channel:
    """One end of the socket. Both sides speak in turns, so that neither reads ahead."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.received = 0  # bytes of all messages so far

    def send(self, message: Any) -> None:
        """Send a JSON value. Raises `Refused` (too large; nothing was sent) or `Closed`."""
        data = dump(message)
        left = memoryview(b"%08x%s" % (len(data), data))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except OSError as error:
                raise Closed from error

    def receive(self) -> Any:
        """The next JSON value. Raises `Refused` for what is no message, and `Closed`."""
        digits = self._exactly(_DIGITS)
        if not all(digit in b"0123456789abcdef" for digit in digits):
            raise Refused("no message: no length")
        length = int(digits, 16)
        if length > MAX_BYTES:
            raise Refused(f"a message of {length} bytes, more than {MAX_BYTES}")
        self.received += length
        return load(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            try:
                part = os.read(self._descriptor, min(count, 1 << 20))
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
