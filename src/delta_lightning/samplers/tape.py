"""The file of recorded completions: one for each rank, gzip members of JSON lines, so that what is complete can always be read.

The first member is one line about the run. Each finished call of `generate` adds two: one line that says what was asked for and
how many bytes follow, and the completions, a line each. A recording that was cut off has lost its last call and nothing else.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.types import Completion, Prompt, SamplingParams

FORMAT = 1
PATTERN = "rank_*.jsonl.gz"
READ_AT_ONCE = 1 << 16


def tape_path(folder: str | Path, rank: int) -> Path:
    """The file of one rank."""
    return Path(folder) / PATTERN.replace("*", str(rank))


def plain(params: SamplingParams) -> dict[str, Any]:
    """The parameters as JSON gives them back: lists for tuples."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(params)))
    return values


def fingerprint(prompt: Prompt) -> str:
    """Of the prompt's token ids."""
    return hashlib.sha256(array("q", prompt.token_ids).tobytes()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One finished call of `generate`: what was asked for, and where its completions are.

    `prompts` maps ids to fingerprints of their tokens. `start` and `size` are bytes in `file`.
    """

    version: int
    seed: int
    num_completions: int
    params: Mapping[str, Any]
    prompts: Mapping[str, str]
    file: Path
    start: int
    size: int

    def completions(self) -> list[Completion]:
        """Read them, in the order in which they ended."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            text = gzip.decompress(file.read(self.size)).decode()
        return [_completion(json.loads(line)) for line in _lines(text)]


class TapeWriter:
    """Writes a new file; one that is there is never touched. Raises `ConfigError` if there is one, `RunError` if it fails.

    With `resumed` it goes on with a file of the same run, which was stopped and repeats what came after its checkpoint: from
    the call that comes first on, the calls that stand there are replaced. A call that was cut off is cleared away.

    Args:
        path: of the file. about: what is to be known of the run, as plain values. resumed: see above.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, resumed: bool = False) -> None:
        self.path = path
        self._before: dict[str, int] = {}  # where the finished calls of the processes before begin, until the first of this one
        if resumed and path.exists():
            self._go_on(about)
            return
        versions = {name: version(name) for name in ("delta-lightning", "torch", "transformers")}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb"):
                pass
        except OSError as error:
            if not path.exists():
                raise RunError(f"the recording {path} could not be written: {error.strerror or error}") from error
            raise ConfigError(
                str(path), wanted="a new file: recordings are never overwritten", got="one that is there",
                remedy="Name another folder, or remove it.",
            ) from error  # fmt: skip
        self._append(_member([{"format": FORMAT, "versions": versions, **about}]))

    def add(
        self, completions: Sequence[Completion], prompts: Sequence[Prompt], *, params: SamplingParams, seed: int,
        num_completions: int, weights_version: int,
    ) -> None:  # fmt: skip
        """One finished call. Raises `RunError` if it cannot be written."""
        lines = _member([_plain_completion(completion) for completion in completions])
        call = {
            "version": weights_version, "seed": seed, "num_completions": num_completions, "params": plain(params),
            "prompts": {prompt.id: fingerprint(prompt) for prompt in prompts},
        }  # fmt: skip
        start = self._before.get(_key(**call))
        self._before = {}
        if start is not None:
            os.truncate(self.path, start)
        self._append(_member([call | {"size": len(lines)}]) + lines)

    def _go_on(self, present: Mapping[str, Any]) -> None:
        recorded = about(self.path)
        other = [name for name in ("world_size", "vocabulary") if recorded.get(name) != present.get(name)]
        if other:
            name = other[0]
            raise ConfigError(
                str(self.path), wanted=f"a recording with {name} {present.get(name)}", got=f"{name} {recorded.get(name)}",
                remedy="Resume as it was recorded, or name another folder.",
            )  # fmt: skip
        with self.path.open("rb") as file:
            end = _read_member(file, 0)[1]
        for call in calls(self.path):
            self._before.setdefault(
                _key(version=call.version, seed=call.seed, num_completions=call.num_completions, params=call.params,
                     prompts=call.prompts), end,
            )  # fmt: skip
            end = call.start + call.size
        os.truncate(self.path, end)

    def _append(self, data: bytes) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise RunError(f"the recording {self.path} could not be written: {error.strerror or error}") from error


def _key(**call: Any) -> str:
    """What was asked for, as one text."""
    return json.dumps(call, sort_keys=True)


def about(path: Path) -> dict[str, Any]:
    """The first line of a file. Raises `ConfigError` for what no `TapeWriter` of this version wrote."""
    wanted, remedy = f"a recording of format {FORMAT}", "Record again with RecordingSampler."
    try:
        with path.open("rb") as file:
            [line] = _read_member(file, 0)[0]
        found = line.get("format")
    except (OSError, EOFError, ValueError, zlib.error, AttributeError) as error:
        raise ConfigError(str(path), wanted=wanted, got=f"none ({type(error).__name__})", remedy=remedy) from error
    if found != FORMAT:
        raise ConfigError(str(path), wanted=wanted, got=f"format {found}", remedy=remedy)
    return dict(line)


def calls(path: Path) -> Iterator[Call]:
    """The finished calls of a file, in order, without their completions."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = _read_member(file, 0)[1]
        while start < size:
            try:
                [line], start = _read_member(file, start)
            except EOFError:  # cut off
                return
            length = line.pop("size")
            if start + length > size:
                return
            yield Call(**line, file=path, start=start, size=length)
            start += length


def _member(lines: Sequence[Mapping[str, Any]]) -> bytes:
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _read_member(file: Any, start: int) -> tuple[list[dict[str, Any]], int]:
    """The lines of one gzip member, and where the next begins. Raises `EOFError` where the file ends inside it."""
    file.seek(start)
    reader, text = zlib.decompressobj(wbits=31), b""
    while not reader.eof:
        data = file.read(READ_AT_ONCE)
        if not data:
            raise EOFError("the file ends inside a member")
        text += reader.decompress(data)
    return [json.loads(line) for line in _lines(text.decode())], file.tell() - len(reader.unused_data)


def _lines(text: str) -> list[str]:
    """`splitlines` would also cut at characters that a text may hold."""
    return text.removesuffix("\n").split("\n")


def _plain_completion(completion: Completion) -> dict[str, Any]:
    sampled, raw = (_digits(values) for values in (completion.logprobs, completion.raw_logprobs))
    return {
        "id": completion.prompt_id, "index": completion.sample_index, "tokens": list(completion.token_ids),
        "text": completion.text, "finish": completion.finish_reason, "version": completion.version,
        "logprobs": sampled, "raw": None if raw == sampled else raw,
    }  # fmt: skip


def _digits(values: Sequence[float]) -> list[float]:
    """Nine digits give every float32 back exactly, in half of the space that a float64 takes."""
    return [float(f"{value:.9g}") for value in array("f", values)]


def _completion(line: Mapping[str, Any]) -> Completion:
    return Completion(
        prompt_id=line["id"],
        sample_index=line["index"],
        token_ids=array("q", line["tokens"]),
        text=line["text"],
        finish_reason=line["finish"],
        version=line["version"],
        logprobs=array("f", line["logprobs"]),
        raw_logprobs=array("f", line["logprobs"] if line["raw"] is None else line["raw"]),
    )
