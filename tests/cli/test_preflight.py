"""Adapters from the command line: what is refused before a model loads, and a run from its start to a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Invoke, invoke, loads

__all__ = ["invoke", "loads"]

FAST = ("--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--report.curves=false")
LORA = (*FAST, "--model.adapter=LoRA", "--model.adapter.rank=2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.adapter=LoRA", "--model.adapter.targets=[q_prj]"), "LoRA.targets: wanted linear layers of Qwen3ForCausalLM"),
        (("--model.adapter=LoRA", "--model.adapter.targets=[lm_head]"), "Leave lm_head out: its weight is read directly"),
        (("--model.adapter=LoRA", "--model.adapter.rank=0"), "LoRA.rank: wanted at least 1, got 0"),
        (("--export.weights=adapter",), "export.weights: wanted merged, got 'adapter'. There is no adapter"),
    ],
)
def test_refused_before_a_model_loads(options: tuple[str, ...], message: str, invoke: Invoke, loads: list[str]) -> None:
    outcome = invoke(*FAST, *options)
    assert outcome.code == 2 and message in outcome.err and "Traceback" not in outcome.err
    assert loads == []


def test_a_run_with_an_adapter_and_what_its_resume_refuses(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = invoke(*LORA, "--export.weights=adapter")
    assert done.code == 0, done.err
    assert "adapter: peft 0." in done.err and "parameters are trained" in done.err and "the base is frozen" in done.err
    assert (tmp_path / "run" / "export" / "adapter_model.safetensors").is_file()
    checkpoint = f"--ckpt_path={tmp_path / 'run' / 'checkpoints' / 'step-1.ckpt'}"
    further = invoke(*LORA, checkpoint, "--trainer.max_epochs=2", f"--run_dir={tmp_path / 'further'}")
    assert further.code == 0, further.err
    for options, message in (
        (LORA[:-1], "model.adapter: wanted that of the checkpoint, LoRA(rank=2, "),
        (FAST, "got none. Resume with the same adapter"),
        ((*LORA, "--model.seed=1"), "model.backbone: wanted the base that the checkpoint's adapter was trained on, got one in"),
    ):
        outcome = invoke(*options, checkpoint, "--trainer.max_epochs=2", f"--run_dir={tmp_path / 'other'}")
        assert outcome.code == 2 and message in outcome.err and "Traceback" not in outcome.err, outcome.err
