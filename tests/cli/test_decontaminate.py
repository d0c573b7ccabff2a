"""`delta-lightning decontaminate` says before a run what the run's own filter will find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from delta_lightning.cli.config_parts import own_parts
from delta_lightning.cli.decontaminate import _parser
from delta_lightning.models.backbone import Backbone
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.folder_notes import FolderNotes
from delta_lightning.trainer.progress import Progress
from delta_lightning.verifiers.numeric import NumericVerifier
from support.cli import Invoke

SHARED = "How many positive integers less than 100 are divisible by neither 3 nor 7"
TRAIN = [f"{SHARED}?", "What is 1 + 1?", f"{SHARED} nor 2?", "What is a very long question of a great many letters worth?"]


def config(folder: Path, source: str = "Table", **settings: object) -> Path:
    for name, questions in (("train", TRAIN), ("test", ["What is 5 + 5?"]), ("exam", [f"{SHARED}?", "What is 9 + 9?"])):
        rows = [json.dumps({"question": text, "answer": "1", "level": n}) for n, text in enumerate(questions)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    table = {"path": str(folder), "train_file": "train*", "held_out_file": "test*",
             "columns": {"question": "question", "answer": "answer", "level": "level"}}  # fmt: skip
    part = {"class_path": "Table", "init_args": table}
    data = {
        "source": part if source == "Table" else {"class_path": source, "init_args": {"table": part}},
        "filters": [
            {"class_path": "Difficulty", "init_args": {"column": "level", "high": 2}},
            {"class_path": "Decontaminate", "init_args": {"against": {
                "exam": {"class_path": "Table", "init_args": {"path": str(folder / "exam.jsonl")}}}}},
        ],
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"model": {"backbone": "Tiny"}, "data": data | settings, "trainer": {"max_epochs": 1}}))
    return path


@pytest.fixture(autouse=True)
def _nothing_loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for cls in Backbone.__subclasses__():
        monkeypatch.setattr(cls, "load", lambda self, context: pytest.fail("a model loaded"))


@pytest.mark.parametrize("source", ["Table", "OnDisk"])
def test_it_finds_what_the_run_s_filter_finds(source: str, invoke: Invoke, tmp_path: Path) -> None:
    report = tmp_path / "out.jsonl"
    done = invoke("decontaminate", f"--config={config(tmp_path, source)}", f"--report={report}", small=False)
    assert done.code == 0, done.err
    assert "2 of 3 training problems" in done.out and "| exam | 2 | 1 | 2 |" in done.out
    assert "| 1.00 | train.jsonl:1: How many" in done.out and f"report in {report}" in done.err
    rows = [json.loads(text) for text in report.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["train.jsonl:1", "train.jsonl:3"]
    assert rows[0]["evaluation"] == "exam" and rows[0]["evaluation_id"] == "exam.jsonl:1" and rows[0]["share"] == 1


def test_the_rows_are_those_of_fit(invoke: Invoke, tmp_path: Path) -> None:
    file, report = config(tmp_path), tmp_path / "out.jsonl"
    assert invoke("decontaminate", f"--config={file}", f"--report={report}", small=False).code == 0
    parser = _parser()
    data = parser.instantiate_classes(parser.parse_args(own_parts([f"--config={file}"], ("backbone",), ("data",)))).data
    data._notes = FolderNotes()
    data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
    data._notes.open(tmp_path / "run")
    assert (tmp_path / "run" / "decontamination.jsonl").read_bytes() == report.read_bytes()


def test_a_filter_that_counts_tokens_asks_the_run_s_tokenizer(invoke: Invoke, tmp_path: Path) -> None:
    file = config(tmp_path)
    tree = yaml.safe_load(file.read_text())
    tree["data"]["filters"].insert(0, {"class_path": "PromptLength", "init_args": {"max_tokens": 20}})
    file.write_text(yaml.safe_dump(tree))
    done = invoke("decontaminate", f"--config={file}", small=False)
    assert done.code == 0 and "0 of 1 training problems" in done.out, done.err
    del tree["model"]
    file.write_text(yaml.safe_dump(tree))
    done = invoke("decontaminate", f"--config={file}", small=False)
    assert done.code == 2 and "model.backbone: wanted a model, by whose tokenizer" in done.err


def test_refusals(invoke: Invoke, tmp_path: Path) -> None:
    file = config(tmp_path)
    done = invoke("decontaminate", f"--config={file}", f"--report={file}", small=False)
    assert done.code == 2 and "--report: wanted a file that does not exist yet" in done.err
    done = invoke("decontaminate", f"--config={config(tmp_path, filters=[])}", small=False)
    assert done.code == 2 and "data.filters: wanted a Decontaminate filter" in done.err
    config(tmp_path)
    (tmp_path / "exam.jsonl").unlink()
    done = invoke("decontaminate", f"--config={file}", small=False)
    assert done.code == 2 and "Decontaminate.against, exam: data path" in done.err and "Traceback" not in done.err
    config(
        tmp_path,
        source="OnDisk",
        filters=[{"class_path": "Deduplicate"}, yaml.safe_load(file.read_text())["data"]["filters"][1]],
    )
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": "x", "answer": "1"}))
    done = invoke("decontaminate", f"--config={file}", small=False)
    assert done.code == 2 and "filters that judge each problem by itself" in done.err
