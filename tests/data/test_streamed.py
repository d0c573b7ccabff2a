"""Rows that come one after another: the order is a function of a number, whatever was read before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from delta_lightning.data import Mixture, PromptLength, Streamed, Table
from delta_lightning.data.maker import DrawnPrompts
from delta_lightning.data.order import Windows
from delta_lightning.data.streamed import StreamRows
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.progress import Progress
from delta_lightning.verifiers.numeric import NumericVerifier

ROWS, WINDOW = 700, 256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, first, last in (("train-0", 0, 300), ("train-1", 300, ROWS), ("test", 1, 5)):
        form = "{0}=" if name == "test" else "{0}+{0}="
        lines = [json.dumps({"question": form.format(n), "answer": str(2 * n)}) for n in range(first, last)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def streamed(folder: Path, **settings: Any) -> Streamed:
    table = Table(path=str(folder), held_out_file="test*", **settings.pop("table", {}))
    return Streamed(**({"table": table, "rows": ROWS, "window": WINDOW} | settings))


def prepared(source: Any, **settings: Any) -> PromptData:
    data = PromptData(source, **settings)
    data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
    return data


def drawn(data: PromptData, numbers: Any) -> list[str]:
    found = [data.nth(number, 8, seed=3) for number in numbers]
    return [prompt.text for prompt in found if prompt is not None]


def test_a_pass_is_shuffled_within_windows_and_any_number_can_be_asked(folder: Path) -> None:
    whole = drawn(prepared(streamed(folder)), range(1500))
    first = whole[:696]  # 87 steps of 8
    values = [int(text.split("+")[0]) for text in first]
    assert len(set(values)) == 696 and sorted(values[:WINDOW]) == list(range(WINDOW)) != values[:WINDOW]
    assert sorted(values[WINDOW : 2 * WINDOW]) == list(range(WINDOW, 2 * WINDOW)) and whole[696 : 2 * 696] != first
    resumed = prepared(streamed(folder))
    assert drawn(resumed, range(1000, 1500)) == whole[1000:]
    assert drawn(resumed, [5, 690, 300, 299, 1400]) == [whole[n] for n in (5, 690, 300, 299, 1400)]


def test_without_shuffling_it_is_the_order_of_the_rows(folder: Path) -> None:
    data = prepared(streamed(folder), shuffle=False)
    assert drawn(data, range(10)) == [f"{n}+{n}=" for n in range(10)] == drawn(data, range(696, 706))
    order = Windows(700, 256, 8, seed=0, shuffle=False)
    assert [order.at(n) for n in (0, 695, 696)] == [0, 695, 0]


def test_filters_and_changed_data(folder: Path) -> None:
    data = prepared(streamed(folder), filters=[PromptLength(max_tokens=4)])
    assert len(drawn(data, range(256))) == 10, "the ten questions of one digit"
    state = {"fingerprint": data.fingerprint().state()}
    prepared(streamed(folder), filters=[PromptLength(max_tokens=4)]).refuse_changed(state)
    with pytest.raises(ConfigError, match="got 650 prompts"):
        prepared(streamed(folder, rows=650), filters=[PromptLength(max_tokens=4)]).refuse_changed(state)


def test_from_a_data_set_as_the_hub_has_them(folder: Path) -> None:
    hub = Streamed(table=Table(hub=str(folder), held_out_split="test"), rows=ROWS, window=WINDOW)
    assert drawn(prepared(hub), range(300, 310)) == drawn(prepared(streamed(folder)), range(300, 310))
    with pytest.raises(ConfigError, match="the stream of the data: wanted a data set"):
        Streamed(table=Table(hub=str(folder / "nothing"), held_out_split="test"), rows=ROWS).problems("train")


def test_a_stream_that_ends_early_says_so(folder: Path) -> None:
    data = prepared(streamed(folder, rows=800))
    with pytest.raises(RunError, match="ended after 700 rows, and 800 were said to be there"):
        drawn(data, range(800))
    assert len(streamed(folder, table={"limit": 300}).problems("train")) == 300


def test_a_window_that_broke_off_is_read_from_its_beginning(folder: Path) -> None:
    rows = streamed(folder).problems("train")
    assert isinstance(rows, StreamRows)

    def lost(phase: str, done: int, total: int) -> None:
        raise OSError("connection lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "tick", lost)
        with pytest.raises(RunError, match=r"after row 256.*connection lost"):
            rows.at(WINDOW)
    assert rows.at(WINDOW).question == f"{WINDOW}+{WINDOW}="


def test_refusals(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"Streamed\.rows: wanted the number of rows"):
        streamed(folder, rows=None).problems("train")
    with pytest.raises(ConfigError, match=r"Streamed\.window"):
        streamed(folder, window=10)
    with pytest.raises(ConfigError, match="held-out problems of their own"):
        Streamed(table=Table(path=str(folder))).check()
    with pytest.raises(ConfigError, match=r"Mixture\.sources: wanted sources whose rows can be read in any order"):
        Mixture(sources={"stream": streamed(folder)})
    (folder / "train-2.parquet").touch()
    with pytest.raises(ConfigError, match=r"data file .*train-2\.parquet|files of one kind"):
        streamed(folder, table={"train_file": "train*"}).problems("train")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_resumed_stream_reads_on_where_it_stood(folder: Path, kind: str) -> None:
    """Whatever it stood at, in the same files; those before the place are not opened again."""
    if kind == "parquet":
        for file in folder.glob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file.with_suffix(".parquet"), row_group_size=70)
            file.unlink()
    before = prepared(streamed(folder))
    whole = drawn(before, range(1400))
    for place in (0, 250, 300, 511, 520, 695, 696, 1000):
        drawn(before, range(max(0, place - 8), place))
        assert isinstance(before.train_prompts, DrawnPrompts)
        rows = before.train_prompts.problems
        assert isinstance(rows, StreamRows)
        state = {"fingerprint": before.fingerprint().state(), "rows": rows.place()}
        torch.save(state, folder / "state.pt")
        after = prepared(streamed(folder))
        after.refuse_changed(torch.load(folder / "state.pt", weights_only=True))
        assert drawn(after, range(place, 1400)) == whole[place:], place


def test_what_lies_before_the_place_is_not_read_again_and_the_progress_says_so(folder: Path) -> None:
    before = prepared(streamed(folder))
    drawn(before, range(600))
    assert isinstance(before.train_prompts, DrawnPrompts) and isinstance(before.train_prompts.problems, StreamRows)
    state = {"fingerprint": before.fingerprint().state(), "rows": before.train_prompts.problems.place()}
    phases: list[tuple[str, int]] = []

    def resumed(state: dict[str, Any]) -> list[str]:
        data = prepared(streamed(folder))
        assert isinstance(data.train_prompts, DrawnPrompts) and isinstance(data.train_prompts.problems, StreamRows)
        data.train_prompts.problems.tick = lambda phase, done, total: phases.append((phase.split(",")[0], done))  # type: ignore[method-assign]
        data.refuse_changed(state)
        return drawn(data, range(600, 640))

    expected = resumed(state)
    assert ("reading up to the place in the stream", 256) not in phases and phases[0] == (
        "finding the place in the stream",
        256,
    )
    phases.clear()
    assert resumed({"fingerprint": state["fingerprint"]}) == expected  # of an earlier version
    assert phases[:2] == [("reading up to the place in the stream", n) for n in (256, 512)]


def test_rows_in_other_files_are_not_taken_for_those_of_the_checkpoint(folder: Path) -> None:
    before = prepared(streamed(folder))
    drawn(before, range(700))  # into the second pass: the windows at hand are the last and the first
    assert isinstance(before.train_prompts, DrawnPrompts) and isinstance(before.train_prompts.problems, StreamRows)
    state = {"fingerprint": before.fingerprint().state(), "rows": before.train_prompts.problems.place()}
    lines = (folder / "train-0.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train-0.jsonl").write_text("".join(lines[:100]), encoding="utf-8")
    (folder / "train-0b.jsonl").write_text("".join(lines[100:]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"another row 513 of the stream.*accept_changed=true"):
        prepared(streamed(folder)).refuse_changed(state)
    after = prepared(streamed(folder), accept_changed=True)
    after.refuse_changed(state)
    assert drawn(after, range(640, 700)) == drawn(before, range(640, 700))


def test_columns_that_are_not_read_may_change(folder: Path) -> None:
    before = prepared(streamed(folder))
    expected = drawn(before, range(400))
    assert isinstance(before.train_prompts, DrawnPrompts)
    state = {"fingerprint": before.fingerprint().state(), "rows": before.train_prompts.place()}
    for file in folder.glob("train*"):
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) | {"more": number} for number, line in enumerate(lines)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    after = prepared(streamed(folder))
    after.refuse_changed(state)
    assert drawn(after, range(400)) == expected
