"""The file of a recording: exact, compressed, never overwritten, readable up to where it was cut."""

from __future__ import annotations

import gzip
import json
from array import array
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.samplers.tape import FORMAT, TapeWriter, about, calls, tape_path
from delta_lightning.types import Completion, SamplingParams
from support.sampling import prompts

VALUES = [0.0, -1e-30, -0.1, -1 / 3, -123.456789, -3.4e38]


def completion(index: int = 0) -> Completion:
    raw = array("f", VALUES)
    return Completion(
        prompt_id="p0", sample_index=index, token_ids=array("q", [5, 6, 7, 8, 9, 1]), text="l\u2019h\u00f4tel\n\u2028{}",
        finish_reason="stop", version=4, logprobs=raw if index == 0 else array("f", [v / 2 for v in raw]), raw_logprobs=raw,
    )  # fmt: skip


def write(path: Path, count: int = 2) -> TapeWriter:
    writer = TapeWriter(path, {"vocabulary": 8})
    for seed in range(count):
        writer.add([completion(0), completion(1)], prompts([3]), params=SamplingParams(stop=("x",)), seed=seed,
                   num_completions=2, weights_version=4)  # fmt: skip
    return writer


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    path = tape_path(tmp_path / "made", 3)
    write(path)
    assert about(path)["vocabulary"] == 8 and set(about(path)["versions"]) == {"delta-lightning", "torch", "transformers"}
    first, second = calls(path)
    assert (first.seed, second.seed, first.version, first.num_completions) == (0, 1, 4, 2)
    assert first.params["stop"] == ["x"] and list(first.prompts) == ["p0"]
    assert second.completions() == [completion(0), completion(1)]
    assert gzip.decompress(path.read_bytes()).count(b"\n") == 1 + 2 * 3, "it is an ordinary gzip file of lines"


def test_a_file_that_was_cut_off_gives_its_finished_calls(tmp_path: Path) -> None:
    path = tape_path(tmp_path, 0)
    write(path)
    whole = path.read_bytes()
    second = list(calls(path))[1]
    for length in range(second.start - 40, len(whole), 7):
        path.write_bytes(whole[:length])
        assert [call.seed for call in calls(path)] == [0]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tape_path(tmp_path, 0)
    write(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        TapeWriter(path, {})
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        TapeWriter(tape_path(tmp_path / "file", 0), {})


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"[1]\n"), gzip.compress(b"{}\n{}\n"), gzip.compress(b"{\n"), gzip.compress(b'{"format":')],
    ids=["empty", "no gzip", "a list", "two headers", "cut short", "cut within a line"],
)
def test_files_that_are_no_recording_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tape_path(tmp_path, 0)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="a recording of format"):
        about(path)


def test_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tape_path(tmp_path, 0)
    path.write_bytes(gzip.compress(json.dumps({"format": FORMAT + 1}).encode() + b"\n"))
    with pytest.raises(ConfigError, match=f"got format {FORMAT + 1}"):
        about(path)
