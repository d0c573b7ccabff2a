"""`delta-lightning verify`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import delta_lightning.verifiers.parts  # noqa: F401 -- makes short names known
from delta_lightning.cli.config_files import settle
from delta_lightning.cli.config_parts import own_parts
from delta_lightning.cli.verify import _OWN, _parser
from support.cli import Invoke
from support.judge_server import serving

ROWS = [
    {"completion": f"so \\boxed{{{answer}}}", "reference": {"answer": "4"}, "id": f"row {answer}", "label": answer == 4}
    for answer in range(8)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(tmp_path / "answers.jsonl", ROWS)


def written(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_file_is_graded(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    fields = ("--verifier=MathVerifier", "--verifier.max_answer_chars=9")
    done = invoke("verify", *fields, f"--data={data}", f"--out={out}", small=False)
    assert (done.code, done.err) == (0, "")
    assert "MathVerifier(max_answer_chars=9)" in done.out
    assert "agreement with labels: 8 of 8 (100.00 %)" in done.out
    assert "8 answers in" in done.out
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS]
    assert [line["reward"] for line in lines] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_overwritten(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    out.write_text("kept")
    done = invoke("verify", "--verifier=MathVerifier", f"--data={data}", f"--out={out}", small=False)
    assert (done.code, out.read_text()) == (2, "kept")
    assert "does not exist yet" in done.err
    assert invoke("verify", "--verifier=MathVerifier", f"--data={data}", f"--out={tmp_path}/no/v", small=False).code == 2


def test_the_verifier_and_the_policy_of_a_run(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    """Configs merge as in `fit`: later ones win, another class drops the fields of the one before, flags win over all."""
    base, overlay, other = tmp_path / "base.yaml", tmp_path / "overlay.yaml", tmp_path / "other.yaml"
    base.write_text(
        "model:\n  backbone: {class_path: Tiny}\n  verifier:\n    class_path: MathVerifier\n"
        "    init_args: {max_answer_chars: 77, after_think: true}\n  verdicts: {timeout_seconds: 3.0, workers: 1}\n"
        "  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4}}\ndata: {source: Arithmetic}\nunknown: [1]\n"
    )
    overlay.write_text("model:\n  verifier: {init_args: {after_think: false}}\n  verdicts: {timeout_seconds: 4.0}\n")
    other.write_text("model:\n  verifier: ExactMatch\n")
    configs = [f"--config={base}", "--config", str(overlay)]
    done = invoke("verify", *configs, f"--data={data}", small=False)
    assert done.code == 0, done.err
    assert "MathVerifier(max_answer_chars=77)\n" in done.out
    assert "1 workers, limit 4 s" in done.out
    done = invoke("verify", *configs, "--model.verifier.max_answer_chars=88", "--verdicts.workers=2", f"--data={data}",
                  "--timeout=5", small=False)  # fmt: skip
    assert "MathVerifier(max_answer_chars=88)\n" in done.out
    assert "2 workers, limit 5 s" in done.out
    done = invoke("verify", *configs, f"--config={other}", f"--data={data}", small=False)
    assert "verifier  ExactMatch()\n" in done.out
    assert "ExactMatch replaces MathVerifier; dropped with it" in done.err


def test_a_config_without_a_verifier_means_that_of_fit(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {seed: 1}\n")
    done = invoke("verify", f"--config={tmp_path}/run.yaml", f"--data={data}", "--rows=3", "--examples=0", small=False)
    assert done.code == 0, done.err
    assert "MathVerifier()\nanswers   3 of" in done.out
    assert "examples" not in done.out


def test_a_config_of_this_repository(invoke: Invoke, data: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    assert invoke("verify", f"--config={config}", f"--data={data}", small=False).code == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--verifier=MathVerifier"], "--data: wanted a file of answers"),
        ([], "--verifier: wanted a verifier"),
        (["--verifier=MathVerifer"], "Did you mean MathVerifier"),
        (
            ["--verifier=MathVerifier", "--verifier.max_answers=3"],
            "has no setting 'max_answers'. Did you mean max_answer_chars",
        ),
        (["--verifier=MathVerifier", "--verifier.max_answer_chars=0"], "max_answer_chars: wanted at least 1"),
        (["--verifier=MathVerifier", "--wrokers=2"], "Did you mean"),
        (["--verifier=Gate"], "error: verifier.first is required and was not given. Known: "),
        (["--verifier=WeightedSum"], "error: verifier.members is required and was not given."),
        (["--verifier=RemoteVerifier"], "error: verifier.service.urls is required and was not given."),
        (["--verifier=MathVerifier", "--workers=0"], "verdicts.workers: wanted at least 1"),
        (["--verifier=MathVerifier", "--rows=0"], "--rows: wanted at least 1"),
        (["--verifier=MathVerifier", "--columns.answer=gold"], "'gold'"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--config=https://example.org/run.yaml"], "a local file"),
    ],
)
def test_mistakes(invoke: Invoke, data: Path, args: list[str], says: str) -> None:
    given = args if "--data" in says else [*args, f"--data={data}"]
    done = invoke("verify", *given, small=False)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) <= 3


def test_a_missing_library_is_said_before_the_references_are_read(
    invoke: Invoke, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delta_lightning.verifiers.json_schema.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "jsonschema.exceptions", None)
    done = invoke("verify", "--verifier=JsonSchema", "--verifier.schema={type: object}", f"--data={data}", small=False)
    assert done.code == 2
    assert done.err == (
        "error: JsonSchema: wanted the package jsonschema, got none installed. pip install 'delta-lightning[json]'.\n"
    )


def test_a_misspelt_part_of_the_verifier_is_answered_with_its_kind(invoke: Invoke, data: Path) -> None:
    done = invoke("verify", "--verifier=CodeVerifier", "--verifier.tests=HumanEvl", f"--data={data}", small=False)
    assert done.code == 2
    assert done.err.startswith("error: verifier.tests: unknown class 'HumanEvl'. Did you mean HumanEval? Known: Apps,")


def test_a_bad_line_is_named_before_anything_is_graded(invoke: Invoke, data: Path) -> None:
    data.write_text(data.read_text() + "{\n")
    done = invoke("verify", "--verifier=MathVerifier", f"--data={data}", small=False)
    assert (done.code, done.out) == (2, "")
    assert "line 9" in done.err


def test_a_remote_judge_its_line_and_its_limit(invoke: Invoke, data: Path) -> None:
    with serving(lambda body: {"reward": float("4" in body["completion"])}) as server:
        args = ["verify", "--verifier=RemoteVerifier", f"--verifier.service.urls=[{server.url()}]", f"--data={data}"]
        done = invoke(*args, small=False)
        assert done.code == 2
        assert "verdicts.timeout_seconds: wanted at least 61 seconds" in done.err
        done = invoke(*args, "--timeout=61", small=False)
        assert done.code == 0, done.err
        assert f"remote judge at {server.url()}: answered the probe in" in done.out
        assert "agreement with labels: 8 of 8" in done.out


def test_too_many_errors_are_exit_code_1(invoke: Invoke, data: Path) -> None:
    with serving(lambda body: {"reward": 1.0 if not body["completion"] else "high"}) as server:
        args = ["verify", "--verifier=RemoteVerifier", f"--verifier.service.urls=[{server.url()}]", f"--data={data}",
                "--timeout=61"]  # fmt: skip
        done = invoke(*args, small=False)
        assert done.code == 1
        assert "error: 100.0 % of the verdicts, more than verdicts.max_error_share=0.1 allows" in done.err
        assert '"high", no number' in done.out
        assert invoke(*args, "--verdicts.max_error_share=1", small=False).code == 0


def test_a_reader_that_goes_away_changes_neither_the_exit_code_nor_the_verdicts(data: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m delta_lightning verify --verifier=MathVerifier --data={data} --out={tmp_path}/v.jsonl"
    done = subprocess.run(
        ["bash", "-c", f"({command}; echo $? >{tmp_path}/code) | true"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.stderr == ""
    assert (tmp_path / "code").read_text() == "0\n"
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize("number", [0, 2])
def test_the_configs_of_the_page_on_remote_judges(number: int, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
    (tmp_path / "run.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[number])
    settle()
    parser = _parser()
    built = parser.instantiate_classes(parser.parse_args(own_parts([f"--config={tmp_path}/run.yaml"], _OWN)))
    assert type(built.verifier).__name__ == ("RemoteVerifier" if number == 0 else "ChatJudge")
    assert number or built.verdicts.workers == 32
    assert number or built.verdicts.check_limit(built.verifier.limit_seconds()) is None


def test_the_example_of_the_page(invoke: Invoke, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text(re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)[0])
    done = invoke("verify", "--verifier=MathVerifier", f"--data={tmp_path}/answers.jsonl", "--examples=1", small=False)
    shown = re.findall(r"(?s)(label  correct.*?)\n6 answers in", page)[0]
    assert shown in done.out


LIGHT = """
import sys
from delta_lightning.__main__ import main
code = main({args!r})
heavy = {{"torch", "lightning", "transformers", "numpy", "sympy", "pyarrow", "datasets"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("args", [["verify", "--help"], ["verify", "--verifier=MathVerifier"]])
def test_it_starts_without_torch(data: Path, args: list[str]) -> None:
    given = args if "--help" in args else [*args, f"--data={data}"]
    done = subprocess.run([sys.executable, "-c", LIGHT.format(args=given)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving() as server:
        rows = [{"completion": "x", "reference": {"answer": "4"}}] * 50
        data, out = written(tmp_path / "answers.jsonl", rows), tmp_path / "verdicts.jsonl"
        server.script = ["proper", "slow"]
        command = [sys.executable, "-m", "delta_lightning", "verify", "--verifier=RemoteVerifier", f"--data={data}",
                   f"--verifier.service.urls=[{server.url('scripted')}]", "--timeout=61", f"--out={out}"]  # fmt: skip
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        deadline = time.monotonic() + 30
        while len(server.requests) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert err == "interrupted; no verdicts were written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
