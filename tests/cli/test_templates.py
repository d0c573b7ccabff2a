"""Prompt templates from files and flags: texts, conversations, one of them for each data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.cli import preflight
from delta_lightning.data.chat import Chat
from delta_lightning.data.prompts import Templates
from delta_lightning.trainer.datamodule import PromptData
from support.cli import Invoke

ROOT = Path(__file__).parents[2]
RAW = "User:\n{question}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:\n"
MARKS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"
TWO = {
    name: {"class_path": "Arithmetic", "init_args": {"digits": digits, "num_train": 12, "num_held_out": 8}}
    for name, digits in (("raw", 1), ("chat", 2))
}


@pytest.fixture
def templates(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Templates]:
    """What the given arguments make of `data.template` and `data.templates`."""

    def read(*args: str) -> Templates:
        built: list[PromptData] = []
        monkeypatch.setattr(preflight, "check_inputs", lambda module, data, *, rank: built.append(data) or exit(0))
        done = invoke(*args)
        assert done.code == 0, done.err
        return built[-1].templates

    return read


def test_texts_and_parts_by_flag(templates: Callable[..., Templates]) -> None:
    for text in ("Question: {question}\nAnswer:", "{question}", "[{question}]", "Chat about {question}: yes"):
        assert templates(f"--data.template={text}").default == text
    assert templates("--data.template=Chat").default == Chat()
    given = templates("--data.template=Chat", "--data.template.system=Be brief.", "--data.template.arguments.thinking=false")
    assert given.default == Chat(system="Be brief.", arguments={"thinking": False})


def test_the_papers_prompt_is_an_overlay(templates: Callable[..., Templates]) -> None:
    preset = ROOT / "configs" / "prompt" / "paper.yaml"
    assert templates("--data.template=Chat", f"--config={preset}").default == RAW
    assert templates(f"--config={preset}", "--data.template=Chat").default == Chat(), "a flag behind it wins"


def test_a_text_takes_the_place_of_a_conversation(templates: Callable[..., Templates], tmp_path: Path) -> None:
    config = tmp_path / "chat.yaml"
    config.write_text(yaml.safe_dump({"data": {"template": {"class_path": "Chat", "init_args": {"system": "Be brief."}}}}))
    assert templates(f"--config={config}").default == Chat(system="Be brief.")
    assert templates(f"--config={config}", "--data.template=Q: {question}").default == "Q: {question}"
    changed = templates(f"--config={config}", "--data.template.user=Solve {question}").default
    assert changed == Chat(system="Be brief.", user="Solve {question}")


def test_a_run_that_mixes_a_raw_text_and_a_conversation(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "marks.jinja").write_text(MARKS, encoding="utf-8")
    chat: dict[str, Any] = {
        "class_path": "Chat",
        "init_args": {"chat_template": str(tmp_path / "marks.jinja"), "system": "Add."},
    }
    config = tmp_path / "mixed.yaml"
    config.write_text(yaml.safe_dump({"data": {
        "source": {"class_path": "Mixture", "init_args": {"sources": TWO}},
        "template": "Sum: {question}", "templates": {"chat": chat},
    }}), encoding="utf-8")  # fmt: skip
    run = tmp_path / "run"
    recording = ("--model.sampler=RecordingSampler", f"--model.sampler.path={tmp_path / 'tape'}")
    done = invoke(f"--config={config}", *recording)
    assert done.code == 0, done.err
    saved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]
    assert saved["template"] == "Sum: {question}"
    assert saved["templates"]["chat"]["class_path"] == "delta_lightning.data.Chat"
    assert saved["templates"]["chat"]["init_args"].items() >= chat["init_args"].items()
    again = invoke(f"--config={run / 'config.yaml'}", f"--run_dir={tmp_path / 'again'}", "--model.sampler=HFSampler")
    assert again.code == 0, again.err


def test_a_name_that_is_no_part_is_taken_for_a_text(invoke: Invoke) -> None:
    done = invoke("--data.template=Chta")
    assert done.code == 2 and "data.template: wanted a text with {question}, got 'Chta'" in done.err


def test_a_tokenizer_without_a_chat_template_is_named(invoke: Invoke) -> None:
    done = invoke("--data.template=Chat")
    assert done.code == 2
    assert "Chat.chat_template: wanted a tokenizer with a template, got one without" in done.err and "Traceback" not in done.err
