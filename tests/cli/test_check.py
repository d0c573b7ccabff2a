"""`delta-lightning check`, and that the tutorial's part works as its page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from delta_lightning.__main__ import main
from support.cli import Invoke

PAGE = Path(__file__).parents[2] / "docs" / "your_own_part.md"


def tutorial() -> str:
    """The first Python block of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tutorial's file; what it makes importable is forgotten afterwards."""
    (tmp_path / "rarity.py").write_text(tutorial(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("rarity", "local", "others"):
            del sys.modules[name]


def test_the_part_has_at_most_40_lines() -> None:
    assert len(tutorial().strip().splitlines()) <= 40


def test_it_obeys_the_laws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "rarity.Rarity", "--power=1.0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rarity.Rarity is a CreditAssigner\n") and out.count("... yes") == 2


def test_the_planted_defect_of_the_page_is_caught(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = tutorial().replace("view.gather(view.batch.token_ids_BT[mask_BT])", "view.batch.token_ids_BT[mask_BT]")
    local = local.replace("view.own(rarity_N / rarity_N.mean())", "rarity_N / rarity_N.mean()")
    assert local != tutorial()
    (folder / "local.py").write_text(local, encoding="utf-8")
    assert main(["check", "local.Rarity"]) == 1
    broken = capsys.readouterr().out.splitlines()[-1]
    said = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if "BROKEN" in line)
    assert said in broken, f"the page says {said!r}, the command {broken!r}"


def test_it_is_selected_from_yaml_by_its_import_path(folder: Path, invoke: Invoke) -> None:
    done = invoke("--model.credit=rarity.Rarity", "--model.credit.power=1.0", "--print_config")
    assert done.code == 0, done.err
    assert yaml.safe_load(done.out)["model"]["credit"] == {"class_path": "rarity.Rarity", "init_args": {"power": 1.0}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Nothing"], "wanted an import path, or the short name of an installed part, got Nothing"),
        (
            ["SequenceMean"],
            ".credit.sequence_mean.SequenceMean and delta_lightning.losses.sequence_mean.SequenceMean",
        ),
        (["no_module.Part"], "No module named 'no_module'"),
        (["os.path.join"], "wanted a class, got os.path.join"),
        (["pathlib.Path"], "must subclass exactly one seam"),
        (["rarity.Rarity", "--power=-1"], "credit.power: wanted at least 0, got -1"),
        (["rarity.Rarity", "--strength=1"], "wanted fields of Rarity"),
    ],
)
def test_refusals(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


REQUIRED = """
from dataclasses import dataclass
from rarity import Rarity

@dataclass(frozen=True, kw_only=True)
class Needy(Rarity):
    \"""A field without a default.

    Args:
        power: as above. floor: must be given.
    \"""

    floor: float

PART = Rarity()
"""


def test_a_field_without_a_default_is_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "others.py").write_text(REQUIRED, encoding="utf-8")
    assert main(["check", "others.Needy", "--floor=0.1"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (REQUIRED, "Needy", "floor"),
        (REQUIRED, "PART", "wanted a class, got others.PART, of type Rarity"),
        ("def (", "Part", "SyntaxError"),
        ("1 / 0", "Part", "ZeroDivisionError"),
    ],
)
def test_refused_files(folder: Path, capsys: pytest.CaptureFixture[str], text: str, name: str, message: str) -> None:
    (folder / "others.py").write_text(text, encoding="utf-8")
    assert main(["check", f"others.{name}"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_short_names_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0 and "Exit code 0" in capsys.readouterr().out
    assert main(["check", "TokenMean"]) == 0
    assert "is a Reduction" in capsys.readouterr().out


JUDGE = """
from dataclasses import dataclass
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Status, Verdict

@dataclass(frozen=True, kw_only=True)
class Contains(Verifier):
    \"""1 where the text contains the word.

    Args:
        source: unused.
    \"""

    source: str = ""

    def score(self, prompt, completion):
        if self.refuse_reference(prompt.reference):
            return Verdict(status=Status.ERROR, reward=0.0)
        right = prompt.reference["word"][0] in completion.text
        return Verdict(status=Status.CORRECT if right else Status.INCORRECT, reward=float(right))

    def reference_fields(self):
        return frozenset({"word"})

    def refuse_reference(self, reference):
        word = reference.get("word")
        return None if isinstance(word, list) and word and isinstance(word[0], str) else "no list"
"""


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (['--reference={"word": ["a"]}'], 0, "obeys the laws of Verifier ... yes"),
        (['--reference={"word": ["a"]}', "--source=anything"], 0, "yes"),
        ([], 1, "no reference to try: {'word': '42'} is refused (no list); give one with --reference"),
        (['--reference={"word": "a"}'], 1, "refuse_reference() refuses an example's reference"),
    ],
)
def test_a_verifier_is_tried_with_a_reference(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    (folder / "others.py").write_text(JUDGE, encoding="utf-8")
    assert main(["check", "others.Contains", *options]) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("given", "message"), [("{", "wanted JSON"), ("[1]", "wanted a JSON object, got [1]")])
def test_a_reference_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str], given: str, message: str) -> None:
    (folder / "others.py").write_text(JUDGE, encoding="utf-8")
    assert main(["check", "others.Contains", f"--reference={given}"]) == 2
    assert message in capsys.readouterr().err


def test_the_data_set_of_the_reference_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    by_source = ["BySource", '--verifiers={"gsm8k": {"class_path": "MathVerifier"}}', '--reference={"answer": "42"}']
    assert main(["check", *by_source, "--source=gsm8k"]) == 0, capsys.readouterr().out
    assert main(["check", *by_source]) == 1
    assert "there are gsm8k, got problems of 'example'" in capsys.readouterr().out


def test_a_service_that_is_away_breaks_no_law(capsys: pytest.CaptureFixture[str]) -> None:
    service = "--service.urls=[http://localhost:1/v1/chat/completions]"
    assert main(["check", "ChatJudge", "--model=x", service]) == 2
    said = capsys.readouterr()
    assert "BROKEN" not in said.out
    assert said.err.startswith("error: remote judge at http://localhost:1/")
