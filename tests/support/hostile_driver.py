"""The smallest driver that answers calls of `add`: what the tests of the sandbox run hostile programs in."""

from __future__ import annotations

import json
import os


def serve(channels: list[int], argument: bytes) -> None:
    """Run the program `argument`, then answer each line `{"id", "arguments"}` with `{"id", "value"}`."""
    (channel,) = channels
    space: dict[str, object] = {"__name__": "solution"}
    _say(channel, {"loaded": _load(argument.decode("utf-8", "surrogatepass"), space)})
    with os.fdopen(os.dup(channel), "rb") as questions:
        for line in questions:
            question = json.loads(line)
            try:
                value = space["add"](*question["arguments"])  # type: ignore[operator]
                answer = {"id": question["id"], "value": value if type(value) is int else None}
                if type(value) is str:
                    answer["text"] = value[:10000]  # a secret that came out is looked for here
            except BaseException as error:  # noqa: BLE001 - whatever the program raises is its answer
                answer = {"id": question["id"], "value": None, "error": str(error)[:10000]}
            _say(channel, answer)


def _load(program: str, space: dict[str, object]) -> bool:
    try:
        exec(compile(program, "solution.py", "exec"), space)
    except BaseException:  # noqa: BLE001 - as above
        return False
    return True


def _say(channel: int, message: dict[str, object]) -> None:
    text = json.dumps(message).encode() + b"\n"
    while text:
        text = text[os.write(channel, text) :]
