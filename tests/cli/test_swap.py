"""A class swap drops every argument of the class before it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace, _typehints

from delta_lightning.cli import swap
from support.cli import Invoke

TOY = """
from dataclasses import dataclass
from delta_lightning.losses import ClippedSurrogate

@dataclass(frozen=True, kw_only=True)
class ToySurrogate(ClippedSurrogate):
    clip_low: float = 0.5
"""
OLD = "model: {loss: {class_path: ClippedSurrogate, init_args: {clip_low: 3.0e-4}}}\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_swap_parts.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "toy_swap_parts.ToySurrogate"


def loss_of(printed: str) -> dict[str, object]:
    return dict(yaml.safe_load(printed)["model"]["loss"])


@pytest.mark.parametrize(
    "ways",
    [
        ["--model.loss={toy}"],
        ['--model.loss={{"class_path": "{toy}"}}'],
        ['--model.loss={{"class_path": "{toy}", "init_args": {{}}}}'],
        ["--config={second}"],
    ],
)
def test_same_named_arguments_do_not_survive(ways: list[str], toy: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(OLD, encoding="utf-8")
    second = tmp_path / "second.yaml"
    second.write_text(f"model: {{loss: {{class_path: {toy}}}}}\n", encoding="utf-8")
    args = [way.format(toy=toy, second=second) for way in ways]
    done = invoke(f"--config={tmp_path / 'old.yaml'}", *args, "--print_config")
    assert done.code == 0, done.err
    loss = loss_of(done.out)
    assert loss["class_path"] == toy and dict(loss["init_args"])["clip_low"] == 0.5  # type: ignore[call-overload]
    assert "ToySurrogate replaces ClippedSurrogate; dropped with it: clip_low=0.0003\n" in done.err


def test_arguments_given_to_the_new_class_hold(toy: str, invoke: Invoke) -> None:
    done = invoke("--model.loss.clip_low=0.1", f"--model.loss={toy}", "--model.loss.clip_low=0.3", "--print_config")
    assert dict(loss_of(done.out)["init_args"])["clip_low"] == 0.3  # type: ignore[call-overload]


def test_naming_the_same_class_again_keeps_its_arguments(invoke: Invoke) -> None:
    done = invoke("--model.credit.low=0.5", "--model.credit=Delta", "--print_config")
    assert yaml.safe_load(done.out)["model"]["credit"]["init_args"]["low"] == 0.5
    assert "dropped" not in done.err


def test_default_arguments_are_dropped_in_silence(invoke: Invoke) -> None:
    done = invoke("--model.credit=Uniform", "--print_config")
    assert yaml.safe_load(done.out)["model"]["credit"] == {"class_path": "delta_lightning.credit.Uniform", "init_args": {}}
    assert done.err == ""


def test_the_optimisers_published_settings_are_said_to_go(invoke: Invoke) -> None:
    done = invoke("--model.optimizer=SGD", "--print_config")
    assert "SGD replaces AdamW; dropped with it: lr=1e-06, weight_decay=0.1\n" in done.err
    assert yaml.safe_load(done.out)["model"]["optimizer"]["init_args"]["lr"] == 0.001


def test_the_private_name_of_jsonargparse_is_still_what_it_was() -> None:
    """Guards the pinned version: the function that is replaced exists, has these parameters and is looked up by name."""
    source = inspect.getsource(_typehints)
    assert "def discard_init_args_on_class_path_change(parser_or_action, prev_val, value):" in source
    assert "    discard_init_args_on_class_path_change(parser, prev_val, value)\n" in source
    swap.install()
    swap.take_dropped()
    before = Namespace(class_path="delta_lightning.credit.Delta", init_args=Namespace(low=0.1))
    _typehints.discard_init_args_on_class_path_change(None, before, Namespace(class_path="delta_lightning.credit.Uniform"))
    assert vars(before.init_args) == {}
    assert swap.take_dropped() == ["Uniform replaces Delta; dropped with it: low=0.1"]
