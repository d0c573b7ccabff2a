from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from delta_lightning.models import LoadContext, Tiny, WarmStart
from delta_lightning.models.backbone import Demonstration
from delta_lightning.models.warm_start_cache import MANIFEST, WEIGHTS, cache_root

DEMONSTRATIONS: list[Demonstration] = [((40 + i,), (60 + i, 1)) for i in range(8)]
TINY = Tiny(
    hidden_size=16, layers=1, heads=2, kv_heads=1, intermediate_size=24, warm_start=WarmStart(max_steps=2, batch_size=4, ramp=1)
)


class Run:
    """Loads `tiny` and keeps what was said and how many batches were learnt."""

    def __init__(self, tiny: Tiny = TINY, *, seed: int = 0, demonstrations: list[Demonstration] = DEMONSTRATIONS) -> None:
        self.said: list[str] = []
        self.learnt = 0
        context = LoadContext(seed=seed, demonstrations=lambda: demonstrations, tick=self.tick, say=self.said.append)
        self.model = tiny.load(context)

    def tick(self, phase: str, done: int, total: int) -> None:
        self.learnt += 1

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}


def same(first: Run, second: Run) -> bool:
    theirs = second.weights()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in first.weights().items())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DELTA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "warm-start"


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
@pytest.mark.parametrize("tied", [True, False])
def test_second_run_loads_the_same_weights_without_learning(cache: Path, family: Any, tied: bool) -> None:
    tiny = replace(TINY, family=family, tie_embeddings=tied)
    first, second = Run(tiny), Run(tiny)
    assert (first.learnt, second.learnt) == (2, 0)
    assert same(first, second)
    assert (second.model.lm_head.weight is second.model.model.embed_tokens.weight) is tied
    assert len(second.said) == 1 and "from the cache" in second.said[0]
    assert [file.name for file in sorted(entries(cache)[0].iterdir())] == [MANIFEST, WEIGHTS]


CHANGES: dict[str, Callable[[], Run]] = {
    "seed": lambda: Run(seed=1),
    "demonstrations": lambda: Run(demonstrations=[*DEMONSTRATIONS[:-1], ((47,), (68, 1))]),
    "order": lambda: Run(demonstrations=DEMONSTRATIONS[::-1]),
    "architecture": lambda: Run(replace(TINY, intermediate_size=32)),
    "same shapes, another window": lambda: Run(replace(TINY, context=512)),
    "options": lambda: Run(replace(TINY, warm_start=replace(TINY.warm_start, lr=1e-3))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_what_decides_the_weights_learns_again(cache: Path, change: str) -> None:
    Run()
    assert CHANGES[change]().learnt == 2
    assert len(entries(cache)) == 2


def test_where_it_is_kept_does_not_matter(tmp_path: Path) -> None:
    first = Run(replace(TINY, warm_start=replace(TINY.warm_start, cache_folder=str(tmp_path / "other"))))
    (tmp_path / "cache").mkdir()
    (tmp_path / "other" / "warm-start").rename(tmp_path / "cache" / "warm-start")
    assert Run().learnt == 0 and first.learnt == 2


def test_without_cache_nothing_is_written_or_read(cache: Path) -> None:
    off = replace(TINY, warm_start=replace(TINY.warm_start, cache=False))
    assert Run(off).learnt == 2 and not cache.exists()
    Run()
    assert Run(off).learnt == 2


def test_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DELTA_CACHE")
    assert cache_root(WarmStart()) == Path.home() / ".cache" / "delta_lightning" / "warm-start"


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def foreign(entry: Path) -> None:
    """A complete, consistent entry of another model, put in this one's place."""
    name = entry.name
    Run(replace(TINY, hidden_size=8))
    other = next(folder for folder in entry.parent.iterdir() if folder.name != name)
    for file in other.iterdir():
        (entry / file.name).write_bytes(file.read_bytes())


def foreign_weights_with_our_key(entry: Path) -> None:
    ours = json.loads((entry / MANIFEST).read_text())["key"]
    foreign(entry)
    edit(entry / MANIFEST, lambda values: values.update(key=ours))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit in the weights": (lambda entry: flip(entry / WEIGHTS, -5), "checksum"),
    "a flipped bit in the header": (lambda entry: flip(entry / WEIGHTS, 12), "checksum"),
    "weights cut short": (lambda entry: (entry / WEIGHTS).write_bytes((entry / WEIGHTS).read_bytes()[:-4]), "checksum"),
    "no weights": (lambda entry: (entry / WEIGHTS).unlink(), "weights cannot be read"),
    "no manifest": (lambda entry: (entry / MANIFEST).unlink(), "manifest cannot be read"),
    "manifest cut short": (lambda entry: (entry / MANIFEST).write_bytes((entry / MANIFEST).read_bytes()[:50]), "manifest"),
    "another key": (lambda entry: edit(entry / MANIFEST, lambda v: v["key"].update(seed=9)), "something else"),
    "another version of torch": (
        lambda entry: edit(entry / MANIFEST, lambda v: v["key"].update(torch="1.0")),
        "something else",
    ),
    "manifest is a list": (lambda entry: (entry / MANIFEST).write_text("[]"), "not one"),
    "manifest without result": (lambda entry: edit(entry / MANIFEST, lambda v: v.pop("result")), "not one"),
    "a foreign entry": (foreign, "something else"),
    "foreign weights under our key": (foreign_weights_with_our_key, "not those of this model"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_one_line_and_made_again(cache: Path, damage: str) -> None:
    spoil, says = DAMAGE[damage]
    first = Run()
    entry = entries(cache)[0]
    spoil(entry)
    again = Run()
    assert again.learnt == 2 and same(first, again)
    assert says in again.said[0] and "made again" in again.said[0] and "\n" not in again.said[0]
    assert Run().learnt == 0  # and the new one is good
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_said_and_the_run_goes_on(cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    run = Run()
    assert run.learnt == 2
    assert len(run.said) == 2 and "cannot be written" in run.said[1]


def test_disk_full_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        run = Run()
    assert "No space left" in run.said[1] and entries(cache) == []


def test_a_rank_that_finishes_second_takes_the_first_ones_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks may round differently; the weights in the cache are everybody's."""
    from delta_lightning.models import warm_start_cache

    first = Run()
    train = warm_start_cache.train
    parked = cache.parent / "parked"
    entry = entries(cache)[0]
    entry.rename(parked)

    def slow(model: Any, *rest: Any, **named: Any) -> Any:
        result = train(model, *rest, **named)
        with torch.no_grad():
            model.lm_head.weight.add_(1.0)  # as if this process had rounded otherwise
        parked.rename(entry)
        return result

    monkeypatch.setattr(warm_start_cache, "train", slow)
    second = Run()
    assert second.learnt == 2 and same(first, second)


def test_two_processes_at_once(cache: Path) -> None:
    code = (
        "from delta_lightning.models import *\n"
        f"tiny = {TINY!r}\n"
        f"context = LoadContext(demonstrations=lambda: {DEMONSTRATIONS!r}, say=print)\n"
        "tiny.load(context)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    assert Run().learnt == 0
    assert len(entries(cache)) == 1
