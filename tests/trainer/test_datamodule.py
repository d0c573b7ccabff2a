"""Prompts of a run that mixes data sets."""

from __future__ import annotations

from collections import Counter

import pytest

from delta_lightning.data import Arithmetic, Mixture
from delta_lightning.errors import ConfigError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.progress import Progress
from delta_lightning.verifiers.combine.by_source import BySource
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.numeric import NumericVerifier

SOURCES = {
    "sums": Arithmetic(digits=1, num_train=12, num_held_out=8),
    "more": Arithmetic(digits=2, num_train=36, num_held_out=24),
}
JUDGES = BySource(verifiers={"sums": MathVerifier(), "more": NumericVerifier()})


def prepared(judge: BySource = JUDGES, **settings: object) -> PromptData:
    data = PromptData(Mixture(sources=SOURCES), template="Sum: {question}", held_out_prompts=8, **settings)  # type: ignore[arg-type]
    data.prepare(byte_tokenizer(), judge, Progress.for_rank(1))
    return data


def test_templates_by_data_set() -> None:
    data = prepared(templates={"more": "Large: {question}"})
    for prompt in (*data.train_prompts, *data.validation_prompts):
        assert prompt.text.startswith({"sums": "Sum: ", "more": "Large: "}[prompt.source])
    text = {bytes(prompt) for prompt, _ in data.demonstrations(Bytes())}
    assert any(each.startswith(b"Sum: ") for each in text) and any(each.startswith(b"Large: ") for each in text)


class Bytes:
    """Encodes as UTF-8."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return list(text.encode())


def test_held_out_prompts_are_of_every_data_set() -> None:
    assert Counter(prompt.source for prompt in prepared().validation_prompts) == {"sums": 2, "more": 6}


def test_a_template_for_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="names among more, sums, got 'code'"):
        prepared(templates={"code": "{question}"})


def test_a_data_set_without_a_verifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are sums, got problems of 'more'"):
        prepared(BySource(verifiers={"sums": MathVerifier()}))
