"""Patterns of jsonargparse's messages that no seeded mistake reaches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from delta_lightning.cli.messages import Vocabulary, explain, nearest, subclasses


class Seam(ABC):
    @abstractmethod
    def act(self) -> None: ...


class Middle(Seam):
    """Still abstract."""


class First(Middle):
    def act(self) -> None: ...


class Second(First):
    pass


@dataclass(frozen=True)
class Plain:
    size: int = 1


class Root:
    def __init__(self, seam: Seam, plain: Plain = Plain()) -> None: ...


WORDS = Vocabulary(options=["root.seam", "root.seam.help", "root.plain.size"], roots={"root": Root})


def test_classes_of_a_seam_a_list_a_union_and_a_factory() -> None:
    assert subclasses(Seam) == [First, Second]
    assert subclasses(list[Seam]) == [First, Second]
    assert subclasses(Seam | None) == [First, Second]
    assert subclasses(Callable[[int], Seam]) == [First, Second]
    assert subclasses(Plain) == [Plain]
    assert subclasses(int) == []


def test_nearest_is_silent_when_nothing_is_close() -> None:
    assert nearest("zzz", ["alpha"]) == ""
    assert nearest("alfa", ["alpha", "beta"]) == " Did you mean alpha?"


def test_unknown_class_is_answered_from_type_hints() -> None:
    message = 'Parser key "root.seam":\n\n  - Expected a path but Frist\n  - Expected a dot import path string: Frist'
    said = explain(message, WORDS)
    assert said.startswith("root.seam: unknown class 'Frist'. Did you mean First? Known: First, Second;")


def test_a_message_without_a_pattern_is_kept_without_its_noise() -> None:
    message = "Something new:\n  - Expected a path but X either not accessible or invalid\n  - another thing"
    assert explain(message, WORDS) == "Something new: another thing"


def test_help_options_are_not_suggested() -> None:
    assert explain("unrecognized arguments: --root.seem=1", WORDS) == "unknown setting --root.seem. Did you mean --root.seam?"
