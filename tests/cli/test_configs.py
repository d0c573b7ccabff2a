"""The shipped configs: short, and they do what their comments say."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import yaml

from delta_lightning.cli import preflight
from delta_lightning.trainer.module import PolicyModule
from support.cli import Invoke

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in ROOT.glob("configs/**/*.yaml")
    if path.parent.name not in ("ablate", "ablation", "machine", "preset", "prompt")  # overlays
)
TWO_STEPS = (
    "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--model.prompts_per_step=4", "--model.completions_per_prompt=2",
    "--model.sampling.max_new_tokens=8", "--data.held_out_prompts=4", "--data.source.limit=24", "--model.backbone.layers=1",
)  # fmt: skip


def instantiated(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, *args: str) -> PolicyModule:
    """The module of a config, as far as the checks that read files."""
    built: list[PolicyModule] = []

    def stop(module: PolicyModule, data: object, *, rank: int) -> None:
        built.append(module)
        raise SystemExit(0)

    monkeypatch.setattr(preflight, "check_inputs", stop)
    done = invoke("fit", *args, small=False)
    assert done.code == 0, done.err
    return built[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_instantiates(path: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
    monkeypatch.chdir(ROOT)
    instantiated(invoke, monkeypatch, f"--config={path}", f"--run_dir={tmp_path / 'run'}", "--trainer.accelerator=cpu")


def test_the_papers_setting(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "configs" / "experiment" / "delta_qwen3_8b_deepmath.yaml"
    module = instantiated(invoke, monkeypatch, f"--config={path}", f"--run_dir={tmp_path / 'run'}", "--trainer.accelerator=cpu")
    cut = module.plan.cut
    assert (cut.num_groups, module.plan.completions, cut.updates) == (128, 16, 4)
    assert cut.num_groups // cut.updates * module.plan.completions == 512  # responses of one optimiser step
    model = module.backbone.meta()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert 8.1e9 < sum(parameter.numel() for parameter in model.parameters()) < 8.3e9
    template = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["template"]
    assert template == (
        "User:\n{question}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:\n"
    )


def test_defaults_are_the_published_method(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's config changes nothing about the method that the defaults do not already say."""
    monkeypatch.chdir(ROOT)
    run = f"--run_dir={tmp_path / 'run'}"
    bare = instantiated(invoke, monkeypatch, "--model.backbone=Tiny", "--data.source=Arithmetic", run)
    path = ROOT / "configs" / "experiment" / "delta_qwen3_8b_deepmath.yaml"
    paper = instantiated(invoke, monkeypatch, f"--config={path}", run)
    assert bare.parts == paper.parts
    assert bare.plan.cut.num_groups == paper.plan.cut.num_groups and bare.plan.completions == paper.plan.completions
    assert bare.gradients.max_norm == paper.gradients.max_norm


@pytest.mark.data
@pytest.mark.parametrize(("name", "data"), [("gsm8k", "gsm8k"), ("math", "math500/test.jsonl")])
def test_two_steps_on_real_data(name: str, data: str, invoke: Invoke, delta_data: Path, tmp_path: Path) -> None:
    """The tiny model's answers are all wrong: rewards are all equal, and nothing is NaN."""
    path = ROOT / "configs" / "experiment" / f"{name}.yaml"
    done = invoke(
        "fit", f"--config={path}", f"--data.path={delta_data / data}", f"--run_dir={tmp_path / 'run'}", *TWO_STEPS, small=False
    )
    assert done.code == 0, done.err
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = [float(value) for row in rows for value in row.values() if value]
    assert all(math.isfinite(value) for value in values)
    assert [float(row["reward/mean"]) for row in rows if row["reward/mean"]] == [0.0, 0.0]
    assert {float(row["update/grad_norm"]) for row in rows if row["update/grad_norm"]} == {0.0}
