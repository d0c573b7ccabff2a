"""The page of coloured answers."""

from __future__ import annotations

import re

import torch

from delta_lightning.ablation.page import answers_page, choose, token_strings
from delta_lightning.ablation.replay import Replay, replay
from delta_lightning.ablation.summary import Sizes
from delta_lightning.credit import Delta, Uniform
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.types import RolloutBatch
from support.ablation import scored_batch
from support.models import tiny_model
from support.steps import StepSetup


def replayed() -> tuple[Replay, RolloutBatch]:
    scored, _ = scored_batch(tiny_model(), StepSetup())
    return replay(scored, {"Uniform": Uniform(), "<Delta>": Delta()})[0], scored.view.batch


def test_answers_of_both_sides_alternate() -> None:
    both, batch = replayed()
    sign = dict(zip(both.sequence_N.tolist(), both.advantage_N.sign().tolist(), strict=True))
    rows = choose(both, batch, 6)
    assert [sign[int(batch.sequence_ids_B[row])] for row in rows] == [1, -1, 1, -1, 1, -1]
    everything = choose(both, batch, 1000)
    assert len(everything) == len(set(everything)) == sum(value != 0 for value in sign.values())
    only = Replay(**{**vars(both), "advantage_N": both.advantage_N.clamp(min=0)})
    assert len(choose(only, batch, 5)) == 5
    assert choose(Replay(**{**vars(both), "advantage_N": 0 * both.advantage_N}), batch, 5) == []


def test_every_token_of_an_answer_under_every_assigner() -> None:
    both, batch = replayed()
    text = answers_page(
        both, batch, sizes=Sizes(answers=2), strings=lambda token: f"<t{token}>", decode=lambda ids: f"<prompt {ids}>"
    )
    assert "<script" not in text and "http" not in text and "<t" not in text.replace("<title", "")
    assert "&lt;prompt [" in text and "&lt;Delta&gt;" in text
    shown = choose(both, batch, 2)
    tokens = sum(int(batch.loss_mask_BT[row].sum()) for row in shown)
    assert len(re.findall(r"<span style=\"background:#[0-9a-f]{6}\" title=", text)) == 2 * tokens
    sequences = [int(batch.sequence_ids_B[row]) for row in shown]
    here = torch.isin(both.sequence_N, torch.tensor(sequences))
    for value in both.coefficients["<Delta>"][here].tolist():
        assert f"coefficient {value:.4g} " in text
    uniform = text.split("Uniform (1.000 everywhere)")[1].split("<h3>")[0]
    assert set(re.findall(r"background:(#\w+)", uniform)) == {"#ffffff"}


def test_of_a_long_answer_the_start_is_shown() -> None:
    both, batch = replayed()
    [row] = choose(both, batch, 1)
    tokens = int(batch.loss_mask_BT[row].sum())
    text = answers_page(both, batch, sizes=Sizes(answers=1, answer_tokens=2), strings=str, decode=str)
    assert text.count("title=") == 2 * 2 and text.count(f"… and {tokens - 2} more tokens") == 2


def test_advantages_per_token_colour_each_token_by_its_own_side() -> None:
    """One answer with both signs and a 0: coefficients 1 and 3 where A > 0, 10 and 30 where A < 0."""
    both, batch = replayed()
    [row] = choose(both, batch, 1)
    sequence = int(batch.sequence_ids_B[row])
    advantages = torch.tensor([0.0, 2.0, 2.0, -0.5, -0.5], dtype=torch.float64)
    values = torch.tensor([7.0, 1.0, 3.0, 10.0, 30.0], dtype=torch.float64)
    mixed = Replay(
        sequence_N=torch.full((5,), sequence), token_N=torch.arange(5), advantage_N=advantages,
        logprob_N=torch.zeros(5, dtype=torch.float64), coefficients={"x": values}, shifts={},
    )  # fmt: skip
    assert choose(mixed, batch, 4) == [row]
    text = answers_page(mixed, batch, sizes=Sizes(), strings=str, decode=str)
    assert "advantages from -0.500 to +2.000" in text
    assert "A &gt; 0: mean 2.000, full colour at ±1; A &lt; 0: mean 20.000, full colour at ±10" in text
    assert re.findall(r"background:(#\w+)\" title", text) == ["#ffffff", "#ea523c", "#4285f4", "#ea523c", "#4285f4"]


def test_nothing_to_credit() -> None:
    both, batch = replayed()
    none = Replay(**{**vars(both), "advantage_N": 0 * both.advantage_N})
    text = answers_page(none, batch, sizes=Sizes(answers=2), strings=str, decode=str)
    assert "there is nothing to credit" in text


def test_token_strings() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("aü\n", add_special_tokens=False)
    found = token_strings(tokenizer, [*ids, 1])
    assert found[ids[0]] == "a" and found[ids[-1]] == "\n" and found[1] == "<|eos|>"
    assert all(text and "\ufffd" not in text for text in found.values()) and len(set(found.values())) == len(found)
