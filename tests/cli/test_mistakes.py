"""Seeded mistakes: each is refused in one message that names the setting and the remedy, before a model loads."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support.cli import SMALL, Invoke, shell

TABLE = ("--data.source=Table", "--data.source.columns.question=question", "--data.source.columns.answer=answer")
GOOD_ROWS = "".join(json.dumps({"question": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(40))


def file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def config(text: str) -> Callable[[Path], list[str]]:
    return lambda tmp_path: [f"--config={file(tmp_path, 'bad.yaml', text)}"]


def table(text: str, *more: str) -> Callable[[Path], list[str]]:
    return lambda tmp_path: [*TABLE, f"--data.path={file(tmp_path, 'rows.jsonl', text)}", *more]


def flags(*args: str) -> Callable[[Path], list[str]]:
    return lambda tmp_path: list(args)


def sharded_checkpoint(tmp_path: Path) -> list[str]:
    folder = tmp_path / "run" / "checkpoints" / "step-1.ckpt"
    folder.mkdir(parents=True)
    torch.save({"global_step": 4}, folder / "meta.pt")
    return [f"--ckpt_path={folder}"]


def held_run(tmp_path: Path) -> list[str]:
    file(tmp_path, "old/config.yaml", "model: {}\n")
    return [f"--run_dir={tmp_path / 'old'}"]


def weightless_model(tmp_path: Path) -> list[str]:
    file(tmp_path, "model/config.json", json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    return ["--model.backbone=Pretrained", f"--model.backbone.path={tmp_path / 'model'}"]


def cut_checkpoint(tmp_path: Path) -> list[str]:
    return [f"--ckpt_path={file(tmp_path, 'run/checkpoints/step-1.ckpt', 'PK cut off')}"]


MISTAKES: dict[str, tuple[Callable[[Path], list[str]], list[str]]] = {
    # Keys and classes that do not exist.
    "group": (flags("--modle.credit=Delta"), ["--modle.credit", "Did you mean --model.credit?"]),
    "option": (flags("--model.completion_per_prompt=4"), ["Did you mean --model.completions_per_prompt?"]),
    "key in yaml": (
        config("model:\n  promts_per_step: 3\n"),
        ["model.promts_per_step", "Did you mean model.prompts_per_step?"],
    ),
    "part's option": (flags("--model.credit.refinement=2"), ["model.credit", "refinement", "Did you mean refinements?"]),
    "part's key in yaml": (
        config("model:\n  credit: {class_path: Delta, init_args: {hihg: 2}}\n"),
        ["Delta has no setting 'hihg'", "Did you mean high?"],
    ),
    "option of a group": (flags("--model.sampling.temprature=1"), ["Did you mean --model.sampling.temperature?"]),
    "nested option": (flags("--model.backbone.warm_start.targett=1"), ["model.backbone.warm_start", "Did you mean target?"]),
    "optimiser's option": (flags("--model.optimizer.lrr=1"), ["AdamW has no setting 'lrr'", "Did you mean lr?"]),
    "class": (flags("--model.credit=Detla"), ["unknown class 'Detla'", "Did you mean Delta?", "Uniform"]),
    "class in yaml": (
        config("model:\n  loss: {class_path: ClipedSurrogate}\n"),
        ["model.loss", "Did you mean ClippedSurrogate?"],
    ),
    "class in a list": (flags("--model.filters=[ZeroVarianc]"), ["model.filters", "Did you mean ZeroVariance?"]),
    "class of another seam": (
        flags("--model.credit=delta_lightning.losses.ClippedSurrogate"),
        ["model.credit", "is of another kind", "Known: ", "Delta, ", "Uniform"],
    ),
    "seam itself": (
        flags("--model.credit=CreditAssigner"),
        ["CreditAssigner is the abstract class", "Known: ", "Delta, ", "Uniform"],
    ),
    "class that cannot be imported": (flags("--model.credit=no.such.Class"), ["cannot import no.such.Class"]),
    "class that may not be named": (flags("--model.credit=os.system"), ["os.system is not a part"]),
    "optimiser": (flags("--model.optimizer=AdmaW"), ["model.optimizer", "Did you mean AdamW?"]),
    "optimiser of a package that is not there": (
        config("model:\n  optimizer: {class_path: no_such_package.optim.AdamW8bit, init_args: {lr: 1e-6}}\n"),
        ["model.optimizer: cannot import no_such_package.optim.AdamW8bit", "pip install no_such_package"],
    ),
    "command": (
        lambda tmp_path: ["fitt"],
        ["unknown command fitt", "Did you mean fit?", "plan, decontaminate, export, ablate, check, verify, serve"],
    ),
    "option that the strategy chosen by itself does not have": (
        flags("--trainer.strategy.cpu_offlod=true"),
        ["trainer.strategy: FSDP2Strategy has no setting 'cpu_offlod'", "Did you mean cpu_offload?"],
    ),
    # Values.
    "greedy evaluation": (
        flags("--model.held_out.temperature=0"),
        ["model.held_out.temperature", "more than 0", "got 0", "0.01 is as good as greedy"],
    ),
    "share of nothing": (flags("--model.held_out.top_p=0"), ["model.held_out.top_p", "a share in (0, 1]"]),
    "evaluation inside a step": (flags("--trainer.val_check_interval=3"), ["trainer.val_check_interval", "wanted 1.0"]),
    "answers longer than the model reads": (
        flags("--model.sampling.max_new_tokens=2000"),
        ["model.sampling.max_new_tokens", "wanted at most 1", "the shortest prompt has", "got 2000", "Lower it"],
    ),
    "more prompts than there are": (
        flags("--model.prompts_per_step=10000"),
        ["model.prompts_per_step", "the number of training prompts", "got 10000"],
    ),
    "not an integer": (flags("--model.prompts_per_step=many"), ["model.prompts_per_step: wanted an integer, got 'many'"]),
    "not a choice": (flags("--model.cache.dtype=int8"), ["model.cache.dtype", "bfloat16"]),
    "not a list": (flags("--model.filters=ZeroVariance"), ["model.filters: wanted a list"]),
    "low above high": (
        flags("--model.credit.low=3"),
        ["credit.low: wanted at most credit.high (1.2), got 3.0", "Swap the two"],
    ),
    "group of one": (flags("--model.completions_per_prompt=1"), ["model.completions_per_prompt", "at least 2", "Raise it"]),
    "negative clip": (flags("--model.loss.clip_low=-1"), ["loss.clip_low", "got -1.0", "0.2"]),
    "uneven updates": (
        flags("--model.prompts_per_step=5"),
        ["model.prompts_per_step", "a multiple of updates_per_step", "Try 6"],
    ),
    "temperature": (flags("--model.sampling.temperature=0"), ["model.sampling.temperature", "more than 0"]),
    "top_p": (flags("--model.sampling.top_p=1.5"), ["model.sampling.top_p", "(0, 1]"]),
    "learning rate in words": (
        flags("--model.optimizer.lr=small"),
        ["model.optimizer.lr: wanted a number, got 'small'"],
    ),
    "LBFGS": (flags("--model.optimizer=torch.optim.LBFGS"), ["model.optimizer: wanted one that", "LBFGS", "AdamW is usual"]),
    "learning rate": (flags("--model.optimizer.lr=-1"), ["model.optimizer", "Invalid learning rate: -1.0"]),
    "workers": (flags("--model.verdicts.workers=0"), ["verdicts.workers", "at least 1"]),
    "template": (flags("--data.template=Q:"), ["template", "{question}"]),
    # Settings of Lightning that contradict the step.
    "clipping twice": (flags("--trainer.gradient_clip_val=1.0"), ["trainer.gradient_clip_val", "--model.max_grad_norm"]),
    "autocast": (flags("--trainer.precision=bf16-mixed"), ["trainer.precision", "32-true"]),
    "fsdp": (flags("--trainer.strategy=fsdp"), ["trainer.strategy", "FSDP1", "use --trainer.strategy=fsdp2"]),
    "FSDP": (flags("--trainer.strategy=FSDP"), ["trainer.strategy", "FSDP1", "use --trainer.strategy=fsdp2"]),
    "strategy": (flags("--trainer.strategy=fdsp2"), ["trainer.strategy", "got 'fdsp2'", "Did you mean fsdp2?"]),
    "single_device": (
        flags("--trainer.strategy=single_device", "--trainer.devices=2"),
        ["trainer.devices: wanted 1", "got '2'", "Leave the strategy out"],
    ),
    "nodes": (flags("--trainer.num_nodes=2"), ["trainer.num_nodes: wanted 1 without a launcher", "torchrun or srun"]),
    "devices": (flags("--trainer.devices=abc"), ["trainer.devices: wanted auto, or a number of at least 1, got 'abc'"]),
    "linked": (
        flags("--trainer.accumulate_grad_batches=3"),
        ["trainer.accumulate_grad_batches", "Set model.micro_batches instead"],
    ),
    "best checkpoint by an evaluation that never comes": (
        flags("--checkpoint.best=held_out/accuracy"),
        ["checkpoint.best: wanted a held-out evaluation in training", "check_val_every_n_epoch=4, max_epochs=1", "Lower"],
    ),
    # Files.
    "no config": (
        flags("--config=nowhere.yaml"),
        ["--config=nowhere.yaml", "nothing there", "in the working folder, /"],
    ),
    "broken yaml": (config("model:\n  credit: [\n"), ["bad.yaml", "line 3"]),
    "key twice": (config("model:\n  seed: 3\n  seed: 4\n"), ["bad.yaml: line 3", "'seed', first on line 2"]),
    "no data": (flags(*TABLE, "--data.path=nowhere.jsonl"), ["nowhere.jsonl", "begins in the working folder, /"]),
    "malformed line": (table(GOOD_ROWS + '{"question": \n'), ["rows.jsonl", "41"]),
    "missing column": (table(GOOD_ROWS, "--data.source.columns.answer=anwser"), ["anwser", "answer"]),
    "empty data": (table(""), ["rows.jsonl"]),
    "long prompt": (
        table(GOOD_ROWS, "--data.source.held_out_rows=8", "--data.max_prompt_tokens=4"),
        ["data.max_prompt_tokens", "4"],
    ),
    "no model": (flags("--model.backbone=Pretrained", "--model.backbone.path=/nowhere/model"), ["/nowhere/model"]),
    "no weights": (weightless_model, ["model", "weights"]),
    "no checkpoint": (flags("--ckpt_path=nowhere.ckpt"), ["--ckpt_path=nowhere.ckpt", "nothing there"]),
    "cut checkpoint": (cut_checkpoint, ["step-1.ckpt", "is missing or damaged", "no whole one"]),
    "sharded checkpoint": (sharded_checkpoint, ["--ckpt_path", "step-1.ckpt", "Use --trainer.strategy=fsdp2"]),
    "folder with a run": (held_run, ["run_dir", "config.yaml", "Choose another --run_dir"]),
    "folder that cannot be made": (flags("--run_dir=/proc/run"), ["run_dir", "/proc/run", "Choose another --run_dir"]),
    "folder is a file": (lambda tmp_path: [f"--run_dir={file(tmp_path, 'taken', '')}"], ["run_dir", "A file has that name"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_refused(
    name: str, tmp_path: Path, invoke: Invoke, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, wanted = MISTAKES[name]
    done = invoke(*make(tmp_path), small=name != "command")
    assert done.code == 2, done.err
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err
    for part in wanted:
        assert part in done.err
    assert len(done.err) < 800 and done.out == ""
    assert loads == []
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_number_is_wanted_whatever_tensors_a_package_adds(invoke: Invoke) -> None:
    class Moments(torch.Tensor):
        """As those of optimisers in 8 bits."""

    Moments.__qualname__ = "Moments"  # no local class, which messages pass over
    done = invoke("--model.optimizer.lr=small")
    assert "model.optimizer.lr: wanted a number, got 'small'" in done.err and Moments.__name__ not in done.err


def test_required_settings_are_named_with_the_choices(invoke: Invoke) -> None:
    done = invoke("fit", small=False)
    assert done.code == 2
    assert "model.backbone is required" in done.err and "Tiny" in done.err
    assert "data.source is required" in done.err and "Arithmetic" in done.err


def test_now_is_refused_where_processes_are_launched_together(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    done = invoke("--run_dir=runs/{now}")
    assert done.code == 2 and "run_dir" in done.err and "--run_dir=runs/my-run" in done.err


def test_refusal_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell("fit", *SMALL, "--model.credit.low=3", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    said = done.stderr.removeprefix("loading torch, Lightning and transformers\n")  # where that takes long
    assert said.startswith("error: credit.low: wanted at most credit.high (1.2), got 3.0. Swap the two")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from delta_lightning.cli import app

    def full(self: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run" / "config.yaml"))

    monkeypatch.setattr(app.RunConfig, "text", full)
    done = invoke()
    assert done.code == 1 and "Traceback" not in done.err
    assert f"could not write {tmp_path / 'run' / 'config.yaml'}: the disk is full" in done.err and "MiB free there" in done.err
