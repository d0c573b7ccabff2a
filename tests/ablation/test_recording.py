"""Recordings: a file that says which weights it belongs to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from delta_lightning.ablation.recording import Recording, fingerprint
from delta_lightning.errors import ConfigError
from support.ablation import scored_batch
from support.models import tiny_model
from support.steps import StepSetup


@pytest.fixture(scope="module")
def recording() -> Recording:
    model = tiny_model()
    scored, micro = scored_batch(model, StepSetup())
    return Recording(
        batch=scored.view.batch, micro=micro, step=3, seed=5, temperature=0.75, weights=fingerprint(model),
        versions={"torch": "2"}, config="model: {}\n",
    )  # fmt: skip


def test_round_trip(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "a.pt")
    back = Recording.load(tmp_path / "a.pt")
    for item in dataclasses.fields(recording.batch):
        a, b = getattr(recording.batch, item.name), getattr(back.batch, item.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, item.name
    assert dataclasses.replace(back, batch=recording.batch) == recording
    back.save(tmp_path / "again" / "a.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "again" / "a.pt").read_bytes()


def test_fingerprint_knows_values_names_shapes_and_dtypes() -> None:
    model = tiny_model()
    first = fingerprint(model)
    assert first == fingerprint(tiny_model()) and first.parameters == sum(p.numel() for p in model.parameters())
    assert first.norm == pytest.approx(
        sum(float(p.detach().double().square().sum()) for p in model.parameters()) ** 0.5, rel=1e-12
    )
    assert fingerprint(tiny_model(dtype=torch.bfloat16)).sha256 != first.sha256
    with torch.no_grad():
        model.lm_head.weight[3, 4] += 1e-6
    changed = fingerprint(model)
    assert changed.sha256 != first.sha256 and changed.norm == pytest.approx(first.norm)
    a, b = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    b.weight.data = a.weight.data.reshape(2, 3)
    assert fingerprint(a).sha256 != fingerprint(b).sha256


def test_other_weights_are_refused_with_the_numbers(recording: Recording) -> None:
    recording.check_weights(fingerprint(tiny_model()))
    other = fingerprint(tiny_model(seed=1))
    with pytest.raises(ConfigError) as raised:
        recording.check_weights(other)
    said = str(raised.value)
    assert recording.weights.sha256[:12] in said and other.sha256[:12] in said and f"{other.norm:.9g}" in said


def test_another_temperature_is_refused(recording: Recording) -> None:
    recording.check_temperature(0.75)
    with pytest.raises(ConfigError, match=r"model.sampling.temperature: wanted 0.75.*got 1"):
        recording.check_temperature(1.0)


def test_settings_that_shaped_the_rows_are_refused(recording: Recording) -> None:
    made = {"filters": [], "micro_batches": 2, "loss": {"class_path": "a.B"}}
    recording.check_settings(made, made | {"loss": {"class_path": "a.C"}, "shaping": []})
    narrow = {"class_path": "x.AccuracyRange", "init_args": {"low": 0.4}}
    with pytest.raises(ConfigError, match=r"model.filters: wanted \[\], with which.*got \[AccuracyRange\(low=0.4\)\]"):
        recording.check_settings(made, made | {"filters": [narrow]})
    with pytest.raises(ConfigError, match=r"model.micro_batches: wanted 2, with which"):
        recording.check_settings(made, made | {"micro_batches": 4})


def test_files_that_are_none(recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing there"):
        Recording.load(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("text")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(ConfigError, match="a file that is none"):
            Recording.load(tmp_path / name)
    recording.save(tmp_path / "a.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:1000])
    with pytest.raises(ConfigError, match="a file that is none"):
        Recording.load(tmp_path / "cut.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save(state | {"format": 9}, tmp_path / "later.pt")
    with pytest.raises(ConfigError, match="got format 9"):
        Recording.load(tmp_path / "later.pt")
