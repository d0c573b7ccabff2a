"""Wrappers from YAML: nested, in lists, with the answers and errors of what is inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from delta_lightning.credit import (
    Compose,
    Delta,
    Flip,
    Mask,
    NegativeOnly,
    Normalise,
    PositiveOnly,
    Schedule,
    SequenceMean,
    Shuffle,
    Uniform,
)  # fmt: skip
from delta_lightning.interfaces import CreditAssigner
from support.cli import Invoke

from .test_configs import ROOT, instantiated

CONTROLS: dict[str, CreditAssigner] = {
    "top_50": Mask(), "bottom_50": Mask(keep="bottom"), "random_50": Mask(assigner=Uniform(), keep="random"),
    "top_50_of_side": Mask(scope="side"), "bottom_50_of_side": Mask(keep="bottom", scope="side"),
    "shuffle_side": Shuffle(), "shuffle_sequence": Shuffle(scope="sequence"),
    "sequence_mean": SequenceMean(), "within_sequence": Normalise(scope="sequence"), "flip": Flip(), "ramp": Schedule(),
    "positive_only": Normalise(assigner=PositiveOnly(), scope="side"),
    "negative_only": Normalise(assigner=NegativeOnly(), scope="side"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_overlay_is_the_control(name: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    args = ("--config=configs/quickstart.yaml", f"--config=configs/ablation/{name}.yaml", f"--run_dir={tmp_path}/run")
    assert instantiated(invoke, monkeypatch, *args).parts.credit == CONTROLS[name]


def overlay(tmp_path: Path, credit: dict[str, Any]) -> str:
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump({"model": {"credit": credit}}), encoding="utf-8")
    return f"--config={path}"


def test_a_list_within_a_wrapper(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = {"class_path": "Shuffle", "init_args": {"assigner": {"class_path": "Delta", "init_args": {"low": 0.5}}}}
    both = {"class_path": "Compose", "init_args": {"assigners": [{"class_path": "Delta"}, shuffled]}}
    monkeypatch.chdir(ROOT)
    built = instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--run_dir={tmp_path}/run",
        overlay(tmp_path, {"class_path": "Normalise", "init_args": {"assigner": both}}),
    )  # fmt: skip
    wanted = Normalise(assigner=Compose(assigners=(Delta(), Shuffle(assigner=Delta(low=0.5)))))
    assert built.parts.credit == wanted


def test_from_flags(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    built = instantiated(
        invoke, monkeypatch, "--config=configs/quickstart.yaml", f"--run_dir={tmp_path}/run",
        "--model.credit=Mask", "--model.credit.assigner=Delta", "--model.credit.assigner.low=0.5", "--model.credit.share=0.2",
    )  # fmt: skip
    assert built.parts.credit == Mask(assigner=Delta(low=0.5), share=0.2)


def test_losses_that_erase_token_credit_take_sequence_means_only(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    args = ("--config=configs/quickstart.yaml", f"--run_dir={tmp_path}/run", "--model.loss=GSPO")
    done = invoke("fit", *args, overlay(tmp_path, {"class_path": "Shuffle"}), small=False)
    assert done.code == 2
    assert "sequence-level credit" in done.err and "Shuffle" in done.err


def test_and_here_they_do(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    args = ("--config=configs/quickstart.yaml", f"--run_dir={tmp_path}/run", "--model.loss=GSPO")
    built = instantiated(invoke, monkeypatch, *args, overlay(tmp_path, {"class_path": "SequenceMean"}))
    assert built.parts.credit == SequenceMean()


def test_a_field_out_of_range_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = invoke(
        "fit", "--config=configs/quickstart.yaml", f"--run_dir={tmp_path}/run",
        overlay(tmp_path, {"class_path": "Flip", "init_args": {"assigner": {"class_path": "Mask", "init_args": {"share": 2}}}}),
        small=False,
    )  # fmt: skip
    assert done.code == 2
    assert "credit.Mask.share: wanted above 0, at most 1, got 2" in done.err
