"""The configs of full-size models: shapes are the published ones, columns fit real rows, machines fit around them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.cli import preflight
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.progress import Progress
from support.cli import Invoke

from .test_configs import ROOT

EXPERIMENTS = ROOT / "configs" / "experiment"
MACHINES = sorted((ROOT / "configs" / "machine").glob("*.yaml"))
# Parameters, counted from the shapes that the models are published with; a tied head counts once.
PARAMETERS = {
    "delta_qwen3_8b_deepmath": 8_190_735_360, "delta_qwen3_14b_deepmath": 14_768_307_200,
    "delta_olmo3_7b_deepmath": 7_298_011_136, "delta_qwen3_8b_code": 8_190_735_360, "one_gpu_qwen3_0.6b": 596_049_920,
    "one_gpu_qwen3_1.7b_lora": 1_720_574_976,
}  # fmt: skip
STEPS = {"delta_qwen3_8b_deepmath": 220, "delta_qwen3_14b_deepmath": 300}  # of rollouts, in the paper
QUICK = ("delta_qwen3_8b_deepmath", "one_gpu_qwen3_1.7b_lora")  # plans take some seconds
PAPER = [name for name in PARAMETERS if name.startswith("delta_")]


def path_of(name: str) -> str:
    return f"--config={EXPERIMENTS / name}.yaml"


KNOWN: dict[tuple[str, ...], tuple[PolicyModule, PromptData]] = {}  # parsing takes a second


def built(invoke: Invoke, patch: pytest.MonkeyPatch, *args: str) -> tuple[PolicyModule, PromptData]:
    """Model and data of a config, as far as the checks that read files."""
    if args in KNOWN:
        return KNOWN[args]
    found: list[tuple[PolicyModule, PromptData]] = []

    def stop(module: PolicyModule, data: PromptData, *, rank: int) -> None:
        found.append((module, data))
        raise SystemExit(0)

    patch.setattr(preflight, "check_inputs", stop)
    patch.chdir(ROOT)
    patch.setenv("MASTER_ADDR", "localhost")  # as a launcher does on every node
    done = invoke("fit", *args, "--run_dir=unused", "--trainer.accelerator=cpu", small=False)
    assert done.code == 0, done.err
    return KNOWN.setdefault(args, found[0])


def test_every_full_size_config_is_looked_at() -> None:
    """Those that name a published architecture."""
    full_size = {path.stem for path in EXPERIMENTS.glob("*.yaml") if "architecture: configs/models/" in path.read_text()}
    assert full_size == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_model_has_the_published_number_of_parameters(name: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = built(invoke, monkeypatch, path_of(name))
    model = module.backbone.meta()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    longest = module.plan.sampling.max_new_tokens
    assert model.config.max_position_embeddings > longest


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_says_of_all_its_runs(name: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """And parts that a short config leaves out are those that the long one spells out."""
    module, data = built(invoke, monkeypatch, path_of(name))
    long, _ = built(invoke, monkeypatch, path_of("delta_qwen3_8b_deepmath"))
    assert module.parts == long.parts and module.gradients.max_norm == long.gradients.max_norm == 1.0
    cut = module.plan.cut
    assert (cut.num_groups, module.plan.completions, cut.updates, data.max_prompt_tokens) == (128, 16, 4, 2048)
    optimizer = module.make_optimizer([next(module.backbone.meta().parameters())])
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-6, 0.1, (0.9, 0.999))
    text = (EXPERIMENTS / f"{name}.yaml").read_text()
    assert name not in STEPS or f"max_epochs: {STEPS[name]} " in text


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PARAMETERS])
def test_the_plan_finds_no_contradiction(name: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """And room, on the machine that the config names, when every answer is as long as it may be."""
    monkeypatch.chdir(ROOT)
    one_gpu = name.startswith("one_gpu")
    memory = 24 if one_gpu else 80
    length = () if one_gpu else ("--length=8000",)
    done = invoke("plan", path_of(name), f"--memory={memory}", *length, "--json", small=False)
    assert done.code == 0, done.err + done.out
    assert json.loads(done.out)["contradictions"] == []


@pytest.mark.slow
def test_the_plan_finds_what_has_no_room(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    args = (path_of("delta_qwen3_14b_deepmath"), "--model.tokens_per_micro_batch=90112", "--memory=80", "--json")
    done = invoke("plan", *args, small=False)
    assert done.code == 2
    assert "memory: wanted at most 80.0 GiB a device" in json.loads(done.out)["contradictions"][0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_experiment_on_every_machine_has_room_but_one(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices of 80 GiB, answers as long as they may be, the sampler's engine awake or asleep as the overlay says."""
    monkeypatch.chdir(ROOT)
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        for machine in MACHINES:
            done = invoke("plan", f"--config={path}", f"--config={machine}", "--device=h100", "--json", small=False)
            contradictions = json.loads(done.out)["contradictions"]
            assert done.code == (2 if contradictions else 0), done.err
            if contradictions:
                found[path.stem, machine.stem] = contradictions
    assert list(found) == [("delta_qwen3_14b_deepmath", "eight_gpus_servers")], found
    (only,) = found["delta_qwen3_14b_deepmath", "eight_gpus_servers"]
    assert only.startswith("memory: wanted at most 80.0 GiB a device") and "more devices" in only


# Columns ------------------------------------------------------------------------------------------------------------------


def prepared(found: tuple[PolicyModule, PromptData], path: Path, **changes: Any) -> PromptData:
    """Prompts as the run makes them of rows at `path` instead of the Hub's, in bytes instead of the model's tokens."""
    module, data = found
    local = replace(data.source, hub=None, hub_config=None, held_out_split=None, path=str(path), **changes)  # type: ignore[type-var]
    here = PromptData(
        source=local, template=data.templates.default, max_prompt_tokens=8192, unusable_references=data.unusable_references
    )
    here.prepare(byte_tokenizer(), module.verifier, Progress())
    return here


def text_of(ids: tuple[int, ...]) -> str:
    text: str = byte_tokenizer().decode(list(ids))
    return text


def deepmath_rows(folder: Path, sample: Path) -> Path:
    """The sample's rows under the columns of the Hub's data set, with those that nothing reads."""
    file = folder / "deepmath.jsonl"
    rows = [json.loads(line) for line in sample.read_text(encoding="utf-8").splitlines()]
    unread = {"difficulty": 5.0, "topic": "Calculus", "r1_solution_1": "", "r1_solution_2": "", "r1_solution_3": ""}
    hub = [{"question": row["prompt"], "final_answer": row["answer"]} | unread for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in hub), encoding="utf-8")
    return file


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in PAPER if name.endswith("deepmath")])
def test_columns_of_deepmath(
    name: str, invoke: Invoke, delta_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = deepmath_rows(tmp_path, delta_data / "deepmath_sample" / "sample.jsonl")
    data = prepared(built(invoke, monkeypatch, path_of(name)), file, held_out_rows=4)
    prompts = [*data.known_prompts(), *data.validation_prompts]
    assert 15 <= len(prompts) <= 30  # about a third of DeepMath's answers are words, which are left out
    answers = {json.loads(line)["final_answer"] for line in file.read_text(encoding="utf-8").splitlines()}
    for prompt in prompts:
        text = text_of(prompt.token_ids)
        assert text.startswith("User:\n") and text.endswith("final answer within \\boxed{}.\n\nAssistant:\n")
        assert prompt.reference["answer"] in answers


@pytest.mark.data
def test_columns_of_mbpp(invoke: Invoke, delta_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(built(invoke, monkeypatch, path_of("delta_qwen3_8b_code")), delta_data / "mbpp" / "mbpp.jsonl", limit=64)
    assert len(data.known_prompts()) == 64
    for prompt in data.known_prompts():
        text = text_of(prompt.token_ids)
        assert prompt.reference["test_list"][0] in text and text.endswith("ends with ```.\n\n")


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in PARAMETERS if name.startswith("one_gpu")])
def test_columns_of_gsm8k(name: str, invoke: Invoke, delta_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"train_file": "train.jsonl", "held_out_file": "test.jsonl"}
    data = prepared(built(invoke, monkeypatch, path_of(name)), delta_data / "gsm8k", limit=64, **files)
    assert len(data.known_prompts()) == 64 and data.validation_prompts
    assert all(float(prompt.reference["answer"]) == int(prompt.reference["answer"]) for prompt in data.known_prompts())


# Machines -----------------------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[str, int, int]] = {  # sampler, ranks of a node, nodes
    "eight_gpus": ("VLLMSampler", 8, 1), "eight_gpus_servers": ("VLLMServerSampler", 4, 1),
    "three_nodes": ("VLLMServerSampler", 8, 2),
}  # fmt: skip


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_machines_fit_around_an_experiment(path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the paper's config: another sampler and other devices, the same objective and sizes."""
    import lightning.pytorch as pl

    made: list[dict[str, Any]] = []
    right = pl.Trainer.__init__

    @wraps(right)
    def noted(self: pl.Trainer, *args: Any, **options: Any) -> None:
        made.append(options)
        right(self, *args, **options)

    monkeypatch.setattr(pl.Trainer, "__init__", noted)
    before, _ = built(invoke, monkeypatch, path_of("delta_qwen3_8b_deepmath"))
    module, _ = built(invoke, monkeypatch, path_of("delta_qwen3_8b_deepmath"), f"--config={path}")
    sampler, devices, nodes = SHAPES[path.stem]
    assert type(module.sampler).__name__ == sampler
    assert (made[-1]["devices"], made[-1]["num_nodes"]) == (devices, nodes)
    assert isinstance(made[-1]["strategy"], FSDP2Strategy) and made[-1]["strategy"].compute_dtype == "bfloat16"
    assert module.parts.credit == before.parts.credit and module.plan == before.plan
    assert module.plan.cut.num_groups // module.plan.cut.updates % (devices * nodes) == 0, "ranks have equally many groups"
