from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from delta_lightning.models.tokenizer import EOS_ID, PAD_ID, VOCABULARY, byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXTS = [
    "",
    "12+3=",
    " lead and trail ",
    "é漢字🎉\n\t\r\x00",
    "a <|eos|> b <|pad|>",
    " ,  . n't",
    "e\u0301 \u2126",
    "\\boxed{1}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_the_bytes_plus_two(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert ids == [byte + 2 for byte in text.encode()]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert EOS_ID not in ids and PAD_ID not in ids
    assert TOKENIZER.decode(ids) == text


def test_special_tokens() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, len(TOKENIZER)) == (PAD_ID, EOS_ID, VOCABULARY) == (0, 1, 258)
    assert TOKENIZER.decode([99, EOS_ID, PAD_ID], skip_special_tokens=True) == "a"


def test_bytes_that_are_no_text_still_decode() -> None:
    assert TOKENIZER.decode([0xFF + 2, ord("a") + 2]) == "\ufffda"


def test_saved_and_loaded_by_auto_tokenizer(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.padding_side) == (PAD_ID, EOS_ID, "left")
    for text in TEXTS:
        ids = loaded.encode(text, add_special_tokens=False)
        assert ids == TOKENIZER.encode(text, add_special_tokens=False) and loaded.decode(ids) == text
