"""`delta-lightning plan`: the page, the exit code, every contradiction at once, and nothing that is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Invoke

PLAN = (
    "plan", "--model.backbone=Tiny", "--model.backbone.layers=1", "--data.source=Arithmetic", "--data.source.num_train=8",
    "--model.prompts_per_step=4", "--model.completions_per_prompt=2", "--model.updates_per_step=2", "--model.micro_batches=1",
    "--model.sampling.max_new_tokens=4", "--trainer.accelerator=cpu",
)  # fmt: skip


def test_page(invoke: Invoke, loads: list[str]) -> None:
    done = invoke(*PLAN, "--device=h100", "--length=3", small=False)
    assert done.code == 0, done.err
    assert "3 expected, 4 at most" in done.out
    assert "Contradictions: none" in done.out
    assert "are left in the worst case" in done.out
    assert all(len(line) < 128 for line in done.out.splitlines() if "This machine" not in line)
    assert not loads


def test_json_of_eight_devices_is_sharded(invoke: Invoke) -> None:
    done = invoke(*PLAN, "--devices=8", "--json", small=False)
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert "sharded" in values["model"]["devices"]
    assert values["worst"]["rank_sequences"] == 2
    assert any("have no sequence" in note for note in values["notes"])


def test_every_contradiction_is_listed(invoke: Invoke, loads: list[str]) -> None:
    done = invoke(
        *PLAN, "--model.updates_per_step=3", "--model.loss=GSPO", "--trainer.precision=bf16-mixed",
        "--model.sampling.temperature=-1", small=False,
    )  # fmt: skip
    assert done.code == 2
    assert "Contradictions: 4" in done.out
    for name in ("trainer.precision", "model.sampling.temperature", "model.prompts_per_step", "model.credit"):
        assert name in done.out
    assert not loads


def test_data_that_the_run_would_refuse(invoke: Invoke) -> None:
    done = invoke(*PLAN, "--model.prompts_per_step=10", "--data.max_prompt_tokens=3", small=False)
    assert done.code == 2
    assert "Contradictions: 2" in done.out
    assert "model.prompts_per_step: wanted at most 8, the number of training prompts, got 10" in done.out
    assert "data.max_prompt_tokens: wanted prompts of at most 3 tokens, got 8 of 8 prompts that are longer" in done.out


def test_mistakes_of_parts_optimiser_and_data_are_listed_together(invoke: Invoke, loads: list[str]) -> None:
    done = invoke(
        *PLAN, "--model.prompts_per_step=9", "--model.optimizer.lr=-1", "--model.tokens_per_micro_batch=0",
        "--data.max_prompt_tokens=3", small=False,
    )  # fmt: skip
    assert done.code == 2, done.err
    assert "Contradictions: 5" in done.out
    for said in (
        "model.prompts_per_step: wanted a multiple of", "Invalid learning rate: -1.0", "model.tokens_per_micro_batch",
        "wanted at most 8, the number of training prompts, got 9", "data.max_prompt_tokens: wanted prompts of at most 3",
    ):  # fmt: skip
        assert said in done.out
    assert "Sizes and memory are planned once these are mended" in done.out and not loads


def test_a_part_that_cannot_be_built_does_not_hide_what_was_refused_before(invoke: Invoke, tmp_path: Path) -> None:
    source = ("--data.source=Table", f"--data.source.path={tmp_path}", "--data.source.answer_pattern=(")
    plan = [argument for argument in PLAN if "data.source" not in argument]
    done = invoke(*plan, *source, "--trainer.precision=bf16-mixed", small=False)
    assert done.code == 2, done.err
    assert "Contradictions: 2" in done.out
    assert "trainer.precision" in done.out and "Table.answer_pattern" in done.out


def test_data_that_are_not_here_are_a_note_since_another_machine_may_have_them(invoke: Invoke, tmp_path: Path) -> None:
    plan = [argument for argument in PLAN if "data.source" not in argument]
    done = invoke(*plan, "--data.source=Table", f"--data.source.path={tmp_path / 'none.jsonl'}",
                  "--data.max_prompt_tokens=16", small=False)  # fmt: skip
    assert done.code == 0, done.err
    assert "their data cannot be read here" in done.out and "none.jsonl" in done.out
    assert "Contradictions: none" in done.out


def test_a_stream_shorter_than_its_rows_is_a_contradiction(invoke: Invoke, tmp_path: Path) -> None:
    plan = [argument for argument in PLAN if "data.source" not in argument]
    for name in ("train", "held_out"):
        (tmp_path / f"{name}.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n' * 8)
    done = invoke(
        *plan, "--data.source=Streamed", "--data.source.table=Table",
        f"--data.source.path={tmp_path}", "--data.source.table.held_out_file=held_out*", "--data.source.rows=50", small=False,
    )  # fmt: skip
    assert done.code == 2, done.err
    assert "the stream of the data ended after 8 rows" in done.out


@pytest.mark.parametrize(("dtype", "said"), [("model", True), ("bfloat16", False)])
def test_a_narrower_cache_is_advised_where_there_is_one(dtype: str, said: bool, invoke: Invoke) -> None:
    budgets = ("--model.cache.device_gib=0", "--model.cache.host_gib=0", f"--model.cache.dtype={dtype}")
    done = invoke(*PLAN, *budgets, small=False)
    assert "raise model.cache.host_gib or device_gib" in done.out
    assert ("or use --model.cache.dtype=bfloat16" in done.out) is said


def test_what_does_not_fit_is_a_contradiction_with_a_remedy(invoke: Invoke) -> None:
    done = invoke(*PLAN, "--memory=0.001", small=False)
    assert done.code == 2
    assert "memory: wanted at most 0.001 GiB" in done.out and "Try " in done.out


@pytest.mark.parametrize("option", ["--mfu=2", "--length=0", "--device=abacus"])
def test_options_out_of_range(option: str, invoke: Invoke) -> None:
    done = invoke(*PLAN, option, small=False)
    assert done.code == 2
    assert done.err.startswith("error: --")


def test_asks_no_network() -> None:
    """A model and data of the Hub, in a process of its own: libraries read the variables when they are imported."""
    program = (
        "import socket, sys\n"
        "socket.getaddrinfo = lambda *names, **_: sys.exit(f'asked for {names[:2]}')\n"
        "from delta_lightning.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ("--model.backbone=Pretrained", "--model.backbone.path=Qwen/no-such", "--data.source.hub=no-such/data")
    online = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
    command = [sys.executable, "-c", program, "plan", "--data.source=Table", *arguments,
               "--model.backbone.architecture=configs/models/Qwen3-0.6B-Base.json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=online, timeout=120, check=False)
    assert "asked for" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert "their data cannot be read here" in done.stdout
