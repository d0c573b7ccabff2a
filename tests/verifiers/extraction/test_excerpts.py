from __future__ import annotations

import time

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.verifiers.extraction.excerpts import (
    AfterMarker,
    AfterThinking,
    FenceOrText,
    FirstPlace,
    LastFence,
    LastLine,
    LastMatch,
    WholeText,
    found_in,
)
from delta_lightning.verifiers.extraction.extraction import Extraction, LastBox


@pytest.mark.parametrize(
    ("place", "text", "wanted"),
    [
        (WholeText(), "  a\nb ", "a\nb"),
        (WholeText(), " \n", None),
        (LastLine(), "one\ntwo \n\n", "two"),
        (LastLine(), "", None),
        (AfterMarker(), "Answer: 1\nANSWER: 2\nmore", "2"),
        (AfterMarker(), "**Answer:** `4 2`", "4 2"),
        (AfterMarker(), "Answer:\n\n  7\n8", "7"),
        (AfterMarker(), "the answer", None),
        (AfterMarker(), "Answer:   ", None),
        (AfterMarker(marker="####"), "72 - 1\n#### 71\r\n", "71"),
        (LastFence(), "```python\na\n```\ntext\n~~~\nb\nc\n~~~\n", "b\nc"),
        (LastFence(languages=("python",)), "```Python\na\n```\n```\nb\n```", "a"),
        (LastFence(languages=("",)), "```python\na\n```\n```\nb\n```", "b"),
        (LastFence(), "````\n```\ninner\n```\n````", "```\ninner\n```"),
        (LastFence(), "```\na\n```\n```\nnever closed", "a"),
        (LastFence(), "no `fence` here", None),
        (LastMatch(), "<answer>1</answer><answer> 2 </answer>", "2"),
        (LastMatch(pattern="^#### (.+)$"), "#### 1\n#### 2\n3", "2"),
        (LastMatch(pattern="(a)|b"), "ab", None),
        (AfterThinking(), "<think>1</think> 2", "2"),
        (AfterThinking(then=LastBox()), r"\boxed{1}</think>\boxed{2}", "2"),
        (AfterThinking(), "<think> 1", None),
        (FenceOrText(), "a\n```\nb\n```\n", "b"),
        (FenceOrText(), " a\n```\nb", "a\n```\nb"),
        (FenceOrText(), " ", None),
        (FirstPlace(places=(LastBox(), LastLine())), "1\n\\boxed{2}\n3", "2"),
        (FirstPlace(places=(LastBox(), LastLine())), "1\n2", "2"),
        (FirstPlace(places=(LastBox(), AfterMarker())), "nothing", None),
    ],
)
def test_places(place: Extraction, text: str, wanted: str | None) -> None:
    assert found_in(text, place) == wanted


def test_an_empty_answer_is_none() -> None:
    assert found_in("<answer> </answer>", LastMatch()) is None
    assert found_in(r"\boxed{ }", LastBox()) is None


def test_lists_from_yaml_become_tuples() -> None:
    assert LastFence(languages=["json"]) == LastFence(languages=("json",))  # type: ignore[arg-type]
    assert FirstPlace(places=[LastLine()]) == FirstPlace(places=(LastLine(),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AfterMarker(marker=" "), "extraction.marker"),
        (lambda: LastMatch(pattern="("), "extraction.pattern: wanted a regular expression, got '\\(': missing"),
        (lambda: LastMatch(pattern="a"), "with one group"),
        (lambda: LastMatch(pattern="(a)(b)"), "with one group"),
        (lambda: FirstPlace(places=()), "at least one"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("place", [WholeText(), LastLine(), AfterMarker(), LastFence(), LastMatch(), AfterThinking()])
@pytest.mark.parametrize(
    "text",
    ["`" * 500_000, "```" + " " * 500_000 + "`", "```\n" * 100_000, "Answer:" * 70_000, "<answer>" * 60_000, "\n" * 500_000],
)
def test_half_a_megabyte_takes_no_time(place: Extraction, text: str) -> None:
    if isinstance(place, LastMatch) and text.startswith("<answer>"):
        pytest.skip("the pattern is the user's; this one is quadratic")
    started = time.perf_counter()
    found_in(text, place)
    assert time.perf_counter() - started < 5
