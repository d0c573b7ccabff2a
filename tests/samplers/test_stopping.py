"""Stop tokens, stop strings and bad words."""

from __future__ import annotations

from itertools import pairwise

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.stopping import Bans, StopRules
from delta_lightning.types import SamplingParams
from support.models import EOS, tiny_model
from support.sampling import full_logprobs, open_session, prompts, sample

PIECES = ["", "", "a", "b", "ab", " b", "</", "answer", ">", "<", "\u2019".encode()[:2], "\u2019".encode()[2:]]


class Pieces:
    """A tokenizer double over the bytes of `PIECES`; 0 and 1 are special."""

    eos_token_id, pad_token_id = EOS, 0
    table = tuple(piece if isinstance(piece, bytes) else piece.encode() for piece in PIECES)

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return b"".join(self.table[i] for i in ids).decode(errors="replace")

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        known = {"ab": [2, 3], " ab": [9, 4], "a": [2], " a": [9, 2]}
        return known.get(text, [])


def rules(**params: object) -> StopRules:
    return StopRules(SamplingParams(**params), ends=[EOS], tokenizer=Pieces(), vocabulary=len(PIECES))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stop", "tokens", "at"),
    [
        ("ab", [2, 2, 3, 2], 2),  # over two tokens
        ("ab", [2, 4, 3], 1),  # inside one
        ("b b", [4, 5, 2], 1),
        ("</answer>", [2, 6, 7, 8, 3], 3),
        ("</answer>", [9, 6, 7, 9, 8, 3], None),
        ("\u2019", [2, 10, 11, 2], 2),  # a character in two tokens
        ("a", [3, 3], None),
        ("ab", [2, EOS], 1),  # the end of sequence
    ],
)
def test_the_completion_ends_with_the_token_that_completes_the_string(stop: str, tokens: list[int], at: int | None) -> None:
    rule = rules(stop=(stop,))
    ended = [rule.ended(tokens[: end + 1]) for end in range(len(tokens))]
    assert ended.index(True) == at if at is not None else not any(ended)


def test_the_first_of_several_strings_ends_it() -> None:
    rule = rules(stop=("</answer>", "b"))
    assert rule.ended([2, 3]) and rule.ended([6, 7, 8]) and not rule.ended([6, 7])


def test_stop_strings_are_found_far_into_a_completion() -> None:
    rule = rules(stop=("</answer>",))
    assert rule.ended([2] * 5000 + [0] * 30 + [6, 0, 7, 0, 8]), "tokens without text do not hide it"


def test_a_stop_string_stays_in_text_and_tokens() -> None:
    """Completions of a model: the text is that of the tokens, and the string is at its end."""
    model, given = tiny_model(vocabulary=12), prompts([3, 5])
    done = sample(open_session(model, Pieces()), given, 16, stop=("ab",), max_new_tokens=40, bad_token_ids=(EOS, 10, 11))
    stopped = [c for c in done.values() if c.finish_reason == "stop"]
    assert len(stopped) > 5
    for c in done.values():
        assert c.text == Pieces().decode(list(c.token_ids))
        assert ("ab" in c.text) == (c.finish_reason == "stop")
        assert "ab" not in Pieces().decode(list(c.token_ids[:-1]))


def test_stop_tokens_end_and_stay() -> None:
    done = sample(open_session(tiny_model(vocabulary=8)), prompts([3, 5]), 8, stop_token_ids=(5, 6))
    for c in done.values():
        assert (c.token_ids[-1] in (EOS, 5, 6)) == (c.finish_reason == "stop")
        assert not {EOS, 5, 6} & set(c.token_ids[:-1])
    assert {c.token_ids[-1] for c in done.values()} >= {5, 6}


def test_bad_tokens_and_words_are_never_drawn_and_the_rest_is_renormalised() -> None:
    model, given = tiny_model(vocabulary=12), {p.id: p for p in prompts([3, 5])}
    done = sample(
        open_session(model, Pieces()), list(given.values()), 32, bad_token_ids=(7,), bad_words=("ab",), max_new_tokens=20
    )  # fmt: skip
    for c in done.values():
        ids = list(c.token_ids)
        assert 7 not in ids
        pairs = list(pairwise(ids))
        assert (2, 3) not in pairs and (9, 4) not in pairs
        whole = full_logprobs(model, given[c.prompt_id], c)
        for at, token in enumerate(ids):
            banned = [7] + [last for first, last in ((2, 3), (9, 4)) if at and ids[at - 1] == first]
            left = 1 - whole[at, banned].exp().sum()
            assert c.raw_logprobs[at] == pytest.approx(float(whole[at, token]), abs=1e-5)
            assert c.logprobs[at] == pytest.approx(float(whole[at, token] - left.log()), abs=1e-5)
    drawn = {pair for c in done.values() for pair in pairwise(c.token_ids)}
    assert {2, 9} <= {first for first, _ in drawn}, "or the bans were never met"


@pytest.mark.parametrize("setting", ["stop_token_ids", "bad_token_ids"])
def test_tokens_outside_the_vocabulary_are_refused(setting: str) -> None:
    session = open_session(tiny_model(vocabulary=8))
    with pytest.raises(ConfigError, match=rf"sampling\.{setting}: wanted token ids from 0 to 7.*\[99\]"):
        session.generate(prompts([3]), num_completions=1, params=SamplingParams(**{setting: (2, 99)}), seed=0)


def test_a_word_of_no_tokens_and_a_ban_of_everything_are_refused() -> None:
    with pytest.raises(ConfigError, match="bad_words"):
        Bans(SamplingParams(bad_words=("zz",)), tokenizer=Pieces(), vocabulary=12)
    with pytest.raises(ConfigError, match="something to draw"):
        Bans(SamplingParams(bad_token_ids=tuple(range(12))), tokenizer=Pieces(), vocabulary=12)
