"""`delta-lightning ablate` from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from delta_lightning.cli.ablate import each_appends
from delta_lightning.errors import RunError
from support.cli import Invoke, Outcome

FAST = (
    "--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--model.verifier=support.odd.OddSum",
    "--model.completions_per_prompt=4", "--model.sampling.max_new_tokens=6", "--sizes.min_count=1",
)  # fmt: skip
CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["model"].get("credit")
    for path in sorted((CONFIGS / "ablation").glob("*.yaml"))
}
FILES = {"report.json", "report.md", "report.png", "answers.html", "rollouts.pt", "config.yaml", "provenance.json"}


@pytest.fixture
def ablate(invoke: Invoke, tmp_path: Path) -> Invoke:
    """`ablate("name", ...)` writes to `tmp_path / "name"`."""

    def run(name: str, *args: str) -> Outcome:
        return invoke(*FAST, f"--output={tmp_path / name}", *args, command="ablate")

    return run


def test_files_determinism_and_replay(ablate: Invoke, invoke: Invoke, tmp_path: Path) -> None:
    listed = "--assigners=[Uniform, Delta, {class_path: Delta, init_args: {refinements: 0}}]"
    done = ablate("a", listed)
    assert done.code == 0, done.err
    assert {file.name for file in (tmp_path / "a").iterdir()} == FILES
    assert "UserWarning" not in done.err and "predict" not in done.err
    assert "3 Delta(refinements=0)" in done.out and "cosine of policy gradients" in done.out

    report = json.loads((tmp_path / "a" / "report.json").read_text(encoding="utf-8"))
    assert report["labels"] == ["Uniform", "Delta(refinements=1)", "Delta(refinements=0)"]
    assert report["rollouts"]["sequences"] == 16 and report["rollouts"]["tokens_signal"] > 20
    assert report["assigners"]["Uniform"]["coefficient"]["all"]["effective_share"] == 1.0
    delta = report["assigners"]["Delta(refinements=1)"]
    assert delta["coefficient"]["all"]["mean"] == pytest.approx(1, abs=1e-6) and delta["coefficient"]["all"]["std"] > 0.01
    assert delta["tokens"]["signal"]["top"] and delta["gradient_norm"] > 0
    assert 0 < report["gradient_cosine"][0][1] < 1 and report["gradient_cosine"][1][1] == 1.0
    assert report["spearman"]["signal"][0] == [None] * 3 and 0 < report["spearman"]["signal"][1][2] < 1

    # The saved config repeats it, elsewhere; a recording replays it; numbers, pictures and rollouts are the same bytes.
    again = invoke("ablate", f"--config={tmp_path / 'a' / 'config.yaml'}", f"--output={tmp_path / 'b'}", small=False)
    assert again.code == 0, again.err
    replayed = ablate("c", listed, f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}")
    assert replayed.code == 0, replayed.err
    assert {file.name for file in (tmp_path / "c").iterdir()} == FILES - {"rollouts.pt"}
    for name in ("report.json", "report.md", "report.png", "answers.html"):
        first = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == first and (tmp_path / "c" / name).read_bytes() == first, name
    assert (tmp_path / "a" / "rollouts.pt").read_bytes() == (tmp_path / "b" / "rollouts.pt").read_bytes()

    # What is added to the list changes nothing about the others.
    more = ablate("d", "--assigners={u: Uniform, d: Delta}", f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}")
    assert more.code == 0, more.err
    named = json.loads((tmp_path / "d" / "report.json").read_text(encoding="utf-8"))
    assert named["labels"] == ["u", "d"]
    assert named["assigners"]["d"]["coefficient"]["all"]["quantiles"] == delta["coefficient"]["all"]["quantiles"]

    filtered = ablate("f", "--model.filters=[{class_path: Truncated}]", f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}")
    assert filtered.code == 2 and "model.filters: wanted []" in filtered.err and not (tmp_path / "f").exists()

    refused = ablate("e", "--model.backbone.seed=3", f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}")
    assert refused.code == 2 and report["rollouts"]["weights"]["sha256"][:12] in refused.err and "norm" in refused.err
    assert not (tmp_path / "e").exists()


def test_at_a_checkpoint_of_a_run(invoke: Invoke, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fast = [flag for flag in FAST if not flag.startswith("--sizes")]
    assert invoke(*fast, "--report.curves=false", "--model.optimizer.lr=0.01").code == 0
    checkpoint = run / "checkpoints" / "step-1.ckpt"
    config = [f"--config={run / 'config.yaml'}", f"--output={tmp_path / 'a'}", "--assigners=Delta"]
    done = invoke("ablate", *config, f"--ckpt_path={checkpoint}", small=False)
    assert done.code == 0, done.err
    recording = torch.load(tmp_path / "a" / "rollouts.pt", weights_only=True)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    norm = sum(float(v.double().square().sum()) for name, v in weights.items() if "lm_head" not in name) ** 0.5
    assert recording["weights"]["norm"] == pytest.approx(norm, rel=1e-9)
    assert recording["step"] == 1  # the rollout step after the checkpoint
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text(encoding="utf-8"))["ckpt_path"] == str(checkpoint)
    before = invoke(
        "ablate", *config, f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}", f"--output={tmp_path / 'b'}", small=False
    )
    assert before.code == 2 and "the weights that sampled the recording" in before.err
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(bytes(data))
    damaged = invoke("ablate", *config, f"--ckpt_path={checkpoint}", small=False)
    assert damaged.code == 2 and "step-1.ckpt has the checksum" in damaged.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--assigners=[Delta, Delta]"], "assigners: wanted each assigner once, got Delta twice"),
        (["--assigners=[]"], "assigners: wanted at least one"),
        (["--assigners=[Delt]"], "assigners: unknown class 'Delt'. Did you mean Delta?"),
        (["--rollouts=none.pt"], "--rollouts=none.pt: wanted a recording"),
        (["--ckpt_path=none.ckpt"], "--ckpt_path=none.ckpt"),
        (["--gradient_gib=-1"], "--gradient_gib: wanted at least 0"),
        (["--step=-1"], "--step: wanted at least 0"),
        (["--trainer.devices=2", "--trainer.strategy=ddp"], "trainer.devices: wanted 1"),
        (["--trainer.devices=1", "--trainer.strategy=fsdp2"], "trainer.strategy: wanted auto"),
        (["--sizes.bins=0"], "sizes.bins: wanted at least 1"),
    ],
)
def test_refusals(args: list[str], said: str, ablate: Invoke, tmp_path: Path, loads: list[str]) -> None:
    done = ablate("a", *args)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err, done.err
    assert loads == [] and list(tmp_path.iterdir()) == []


def test_a_folder_with_anything_in_it_is_refused(ablate: Invoke, tmp_path: Path, loads: list[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    done = ablate("a")
    assert done.code == 2 and "--output: wanted a new or empty folder" in done.err and loads == []
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["notes.txt"]


def test_an_assigner_that_the_loss_cannot_use_is_refused(
    ablate: Invoke, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    from delta_lightning.losses import ClippedSurrogate

    monkeypatch.setattr(ClippedSurrogate, "erases_token_credit", lambda self: True)
    done = ablate("a", "--model.credit=Uniform", "--assigners=[Uniform, Delta]")
    assert done.code == 2 and "error: assigners, Delta (model.credit): wanted" in done.err, done.err


def test_the_credit_of_the_config_plays_no_part(ablate: Invoke, tmp_path: Path) -> None:
    """A loss that erases token credit refuses Delta, the default of model.credit, but not an ablation of others."""
    done = ablate("a", "--model.loss=GSPO", "--assigners=[Uniform, {class_path: SequenceMean}]")
    assert done.code == 0, done.err
    kept = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text(encoding="utf-8"))["model"]["credit"]
    assert kept["class_path"].endswith("Delta")
    refused = ablate("b", "--model.loss=GSPO", "--assigners=[Delta]")
    assert refused.code == 2 and "assigners, Delta" in refused.err and "Use --assigners=Uniform" in refused.err


def test_rollouts_outlive_a_failure(ablate: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from delta_lightning.ablation import module

    def fail(*args: object, **options: object) -> None:
        raise RunError("no gradient today")

    with monkeypatch.context() as patched:
        patched.setattr(module, "gradient_products", fail)
        done = ablate("a", "--assigners=[Uniform]")
    assert done.code != 0 and "no gradient today" in done.err and f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}" in done.err
    again = ablate("b", "--assigners=[Uniform]", f"--rollouts={tmp_path / 'a' / 'rollouts.pt'}")
    assert again.code == 0, again.err


def test_controls_are_among_the_defaults(ablate: Invoke, tmp_path: Path) -> None:
    assert ablate("a").code == 0
    report = json.loads((tmp_path / "a" / "report.json").read_text(encoding="utf-8"))
    assert report["labels"] == [
        "Uniform", "Delta", "Delta(refinements=0)", "Shuffle(Delta)", "SequenceMean(Delta)", "Random", "EntropyTopK",
    ]  # fmt: skip
    delta, shuffled = (report["assigners"][label]["coefficient"]["positive"] for label in ("Delta", "Shuffle(Delta)"))
    assert delta["quantiles"] == shuffled["quantiles"]


def test_shipped_controls_are_those_of_the_overlays() -> None:
    listed = yaml.safe_load((CONFIGS / "ablate" / "controls.yaml").read_text(encoding="utf-8"))["assigners"]
    assert (listed.pop("uniform"), listed.pop("delta")) == ({"class_path": "Uniform"}, {"class_path": "Delta"})
    assert listed == {name: OVERLAYS[name] for name in listed}


def test_the_shipped_list_is_that_of_the_overlays() -> None:
    """The published rows of DelTA that one rank can tell apart."""
    listed = yaml.safe_load((CONFIGS / "ablate" / "delta.yaml").read_text(encoding="utf-8"))["assigners"]
    assert listed.pop("uniform") == {"class_path": "Uniform"}
    published = {name: credit for name, credit in OVERLAYS.items() if credit is not None and credit["class_path"] == "Delta"}
    assert published.pop("scope_rank") and listed == published


@pytest.mark.parametrize("name", ["delta", "controls"])
def test_shipped_lists_run(name: str, ablate: Invoke, tmp_path: Path) -> None:
    path = CONFIGS / "ablate" / f"{name}.yaml"
    done = ablate("a", f"--config={path}")
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "a" / "report.json").read_text(encoding="utf-8"))
    assert report["labels"] == list(yaml.safe_load(path.read_text(encoding="utf-8"))["assigners"])
    assert all(one["gradient_norm"] > 0 for one in report["assigners"].values())


def test_bare_names_append() -> None:
    assert each_appends(["--assigners", "Uniform", "--assigners=a.b.C", "--x=1"]) == [
        "--assigners+=Uniform", "--assigners+=a.b.C", "--x=1",
    ]  # fmt: skip
    assert each_appends(["--assigners=[A, B]", "--assigners+=C"]) == ["--assigners=[A, B]", "--assigners+=C"]
    assert each_appends(["--assigners", "{a: A}", "--assigners.low=3"]) == ["--assigners={a: A}", "--assigners.low=3"]
