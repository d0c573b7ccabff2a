"""`trainer.strategy` takes options after a name, keeps them when the same strategy is named again, and says what it drops."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import _typehints

from support.cli import Invoke

CLASS = "delta_lightning.strategies.FSDP2Strategy"
NARROW = "strategy: {class_path: FSDP2Strategy, init_args: {compute_dtype: bfloat16}}"
GONE = "replaces FSDP2Strategy; dropped with it: compute_dtype=bfloat16\n"


def strategy_of(invoke: Invoke, *args: str) -> tuple[Any, str]:
    """The parsed strategy, and what was printed on stderr."""
    done = invoke(*args, "--print_config")
    assert done.code == 0, done.err
    return yaml.safe_load(done.out)["trainer"]["strategy"], done.err


@pytest.fixture
def narrow(tmp_path: Path) -> str:
    path = tmp_path / "narrow.yaml"
    path.write_text(f"trainer: {{{NARROW}}}\n", encoding="utf-8")
    return f"--config={path}"


@pytest.mark.parametrize("name", ["fsdp2", "FSDP2Strategy", CLASS, '{"class_path": "FSDP2Strategy"}'])
def test_the_same_strategy_named_again_keeps_its_options(name: str, narrow: str, invoke: Invoke) -> None:
    strategy, said = strategy_of(invoke, narrow, f"--trainer.strategy={name}", "--trainer.strategy.cpu_offload=true")
    assert strategy["class_path"] == CLASS and said == ""
    assert strategy["init_args"]["compute_dtype"] == "bfloat16" and strategy["init_args"]["cpu_offload"] is True


def test_a_second_config_that_names_it_keeps_them_too(narrow: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "second.yaml").write_text("trainer: {strategy: fsdp2}\n", encoding="utf-8")
    strategy, said = strategy_of(invoke, narrow, f"--config={tmp_path / 'second.yaml'}")
    assert strategy["init_args"]["compute_dtype"] == "bfloat16" and said == ""


@pytest.mark.parametrize(("name", "said"), [
    ("auto", "auto"), ("single_device", "single_device"), ("ddp_spawn", "ddp_spawn"), ("ddp", "ddp"),
    ("DDPStrategy", "DDPStrategy"), ("lightning.pytorch.strategies.DDPStrategy", "DDPStrategy"),
])  # fmt: skip
def test_another_strategy_says_what_is_dropped(name: str, said: str, narrow: str, invoke: Invoke) -> None:
    strategy, printed = strategy_of(invoke, narrow, f"--trainer.strategy={name}")
    assert printed == f"{said} {GONE}"
    assert "compute_dtype" not in str(strategy)
    assert strategy == name or strategy["class_path"].endswith(".DDPStrategy")


@pytest.mark.parametrize("before", [[], ["--trainer.strategy=auto"], ["--trainer.strategy=fsdp2"],
                                    ["--trainer.strategy=FSDP2Strategy"]])  # fmt: skip
def test_options_follow_a_name_or_none(before: list[str], invoke: Invoke) -> None:
    strategy, _ = strategy_of(
        invoke, *before, "--trainer.strategy.compute_dtype=bfloat16", "--trainer.strategy.cpu_offload=true"
    )
    assert strategy["class_path"] == CLASS
    assert strategy["init_args"]["compute_dtype"] == "bfloat16" and strategy["init_args"]["cpu_offload"] is True


@pytest.mark.parametrize("name", ["ddp", "DDPStrategy"])
def test_options_of_ddp(name: str, invoke: Invoke) -> None:
    strategy, said = strategy_of(
        invoke, "--trainer.strategy=ddp", "--trainer.strategy.process_group_backend=gloo", f"--trainer.strategy={name}"
    )
    assert strategy["class_path"].endswith(".DDPStrategy") and said == ""
    assert strategy["init_args"]["process_group_backend"] == "gloo"


def test_options_in_a_config_without_a_class(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("trainer: {strategy: {cpu_offload: true}}\n", encoding="utf-8")
    strategy, _ = strategy_of(invoke, f"--config={tmp_path / 'options.yaml'}")
    assert strategy["class_path"] == CLASS and strategy["init_args"]["cpu_offload"] is True


@pytest.mark.parametrize("name", ["auto", "fsdp2", "ddp", "single_device"])
def test_a_name_alone_stays_a_name(name: str, invoke: Invoke) -> None:
    assert strategy_of(invoke, f"--trainer.strategy={name}") == (name, "")


def test_the_class_alone_is_accepted_by_a_run(invoke: Invoke, loads: list[str]) -> None:
    done = invoke("--trainer.strategy=FSDP2Strategy", "--model.credit.low=3")
    assert "trainer.strategy" not in done.err and "credit.low" in done.err


def test_the_private_method_of_jsonargparse_is_still_what_it_was() -> None:
    """Guards the pinned version: the method that is replaced has these parameters and is looked up on the action."""
    assert "    def _check_type(self, value, append=False, cfg=None, mode=None):" in inspect.getsource(
        _typehints.ActionTypeHint
    )
    assert "self._check_type(value, **kwargs)" in inspect.getsource(_typehints.ActionTypeHint._check_type_)
