"""A whole program with its standard input and output, alone in its cell."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import io
import os
import sys
import threading
from types import ModuleType

_LENGTH = 8  # bytes that hold the program's length


def pack(program: bytes, standard_input: bytes) -> bytes:
    """The argument of `run`."""
    return len(program).to_bytes(_LENGTH, "big") + program + standard_input


def run(descriptors: list[int], argument: bytes) -> None:
    """Run the program as `python program.py < input`, its output on the first descriptor, and end as it ends.

    The exit status is the program's: 1 for an exception that nothing catches, as in Python. Threads that are no daemons are
    waited for, and functions of `atexit` run. Never returns.
    """
    length = int.from_bytes(argument[:_LENGTH], "big")
    program, standard_input = argument[_LENGTH : _LENGTH + length], argument[_LENGTH + length :]
    _connect(descriptors[0], standard_input)
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv[:] = ["program.py"]
    os._exit(_ended(main, program))


def _connect(output: int, standard_input: bytes) -> None:
    """Descriptors 0 and 1, and the streams over them, as a shell would have set them up."""
    try:
        source = _file(standard_input)
    except OSError:  # nothing can be written where this cell is
        source = _pipe(standard_input)
    for descriptor, number in ((source, 0), (output, 1)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # Python has them from `site`, which is not loaded here


def _file(content: bytes) -> int:
    """A file, as with `< input`: some programs ask for its size. It has no name once it is open."""
    source = os.open("input", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink("input")
    try:
        _write(source, content)
    except OSError:  # larger than the disk of this cell, which it must not keep filled
        os.close(source)
        raise
    os.lseek(source, 0, os.SEEK_SET)
    return source


def _pipe(content: bytes) -> int:
    source, sink = os.pipe()

    def fill() -> None:
        with contextlib.suppress(OSError):  # the program does not read to the end
            _write(sink, content)
        os.close(sink)

    threading.Thread(target=fill, daemon=True).start()
    return source


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _ended(main: ModuleType, program: bytes) -> int:
    """Run it to its very end; its exit status."""
    status = 0
    try:
        exec(compile(program, "program.py", "exec", dont_inherit=True), vars(main))
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException:  # noqa: BLE001 -- the status says it, as in Python
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls at this point
        atexit._run_exitfuncs()
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 -- the status says it
        status = status or 1
    return status


def _exit_status(code: object) -> int:
    """As Python's own: None is 0, an integer itself, anything else is printed (not here) and is 1."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1
