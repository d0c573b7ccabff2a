"""The page of coloured answers."""

from __future__ import annotations

import re

import torch

from delta_lightning.ablation.page import answers_page, choose, token_strings
from delta_lightning.ablation.replay import Replay, replay
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
    text = answers_page(both, batch, answers=2, strings=lambda token: f"<t{token}>", decode=lambda ids: f"<prompt {ids}>")
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


def test_nothing_to_credit() -> None:
    both, batch = replayed()
    none = Replay(**{**vars(both), "advantage_N": 0 * both.advantage_N})
    text = answers_page(none, batch, answers=2, strings=str, decode=str)
    assert "there is nothing to credit" in text


def test_token_strings() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("aü\n", add_special_tokens=False)
    found = token_strings(tokenizer, [*ids, 1])
    assert found[ids[0]] == "a" and found[ids[-1]] == "\n" and found[1] == "<|eos|>"
    assert all(text and "\ufffd" not in text for text in found.values()) and len(set(found.values())) == len(found)
