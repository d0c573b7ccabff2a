r"""Answers that are words or choice letters: compared as strings, never as products of symbols.

A computer algebra system reads `Yes` as Y * e * s, which equals `Yse`. So words are told from formulas here, first.
"""

from __future__ import annotations

import re

from delta_lightning.verifiers.mathematics.tidy import unwrapped

_PLAIN = re.compile(r"[A-Za-z][A-Za-z'\- ,.;:!]*")
_LETTER_PAIR = re.compile("[A-Za-z]{2}|^[^A-Za-z]*[A-Za-z][^A-Za-z]*$")
_PARENTHESES = re.compile(r"\(\s*([A-Za-z ]+?)\s*\)")
_ARTICLE = re.compile(r"(?:the|an?) (?=[a-z]{3})")
_YES_OR_NO = frozenset({"yes", "no", "true", "false"})
_CHOICES = frozenset("abcdefghij")
_SAME = {  # one name for each, so that the number of solutions that do not exist does not matter
    "no solutions": "no solution", "no real solutions": "no real solution", "there is no solution": "no solution",
    "there are no solutions": "no solution", "dne": "does not exist", "doesn't exist": "does not exist",
}  # fmt: skip
_LETTERS = re.compile(r"\(?\s*(?:[A-J]|[IVX]+)\s*\)?(?:\s*(?:,\s*and|,|and|&)\s*\(?\s*(?:[A-J]|[IVX]+)\s*\)?)+")
_SHORT_WORDS = frozenset({"no", "on", "ii", "iv", "vi", "ix", "or", "up", "he", "it"})


def words(text: str) -> str | None:
    """The words of a `tidy` text in lower case, one space between them, or None where it holds anything but words."""
    bare = unwrapped(text).replace("*", "").strip()
    inside = _PARENTHESES.fullmatch(bare)
    bare = inside[1] if inside else bare
    if not _PLAIN.fullmatch(bare) or (len(bare) > 1 and not _LETTER_PAIR.search(bare)):  # `p - q` is a difference
        return None
    spaced = " ".join(re.sub(r"[,.;:!]", " ", bare.lower()).split())
    spaced = _ARTICLE.sub("", spaced, count=1) if _ARTICLE.match(spaced) else spaced
    return _SAME.get(spaced, spaced)


def is_words(gold: str) -> bool:
    """Whether a `tidy` reference is words or a letter, so that it needs no parser."""
    if _choices(gold):
        return True
    wanted = words(gold)
    return wanted is not None and (len(wanted) == 1 or _is_word(gold, wanted))


def same_words(gold: str, answer: str) -> bool | None:
    r"""Whether two `tidy` texts are the same words; None where `gold` is a formula and the question stays open.

    Letters count as a word when they are set as text, when there are three or more of them, or when they begin with a
    capital (`No`); two small letters (`xy`) are a product. A single letter (`C`, `\text{(C)}`) is decided only against
    another letter, because it may be a constant; A to J, choices, match without regard to case.
    """
    several = _choices(gold)
    if several:
        return several == _choices(answer)
    wanted, got = words(gold), words(answer)
    if wanted is None:
        return None
    if len(wanted) == 1:
        return _same_letter(gold, wanted, answer, got)
    if not _is_word(gold, wanted):
        return None
    if got is None:
        return False
    if wanted in _YES_OR_NO and re.match(rf"\W*{wanted}\s*[,.;:]", unwrapped(answer), re.IGNORECASE):
        return True
    return wanted == got


def _choices(text: str) -> frozenset[str]:
    """The letters of `A, C and D`, several choices in any order; empty where the text is anything else."""
    bare = unwrapped(text).strip()
    return frozenset(re.findall("[A-HJ]|[IVX]+", bare)) if _LETTERS.fullmatch(bare) else frozenset()


def _same_letter(gold: str, wanted: str, answer: str, got: str | None) -> bool | None:
    set_as_text = gold.strip() != unwrapped(gold) or "(" in gold
    if got is None or len(got) != 1:
        return False if set_as_text and wanted in _CHOICES - {"e", "i"} else None
    if wanted in _CHOICES:
        return wanted == got
    return _letter(gold) == _letter(answer)


def _letter(text: str) -> str:
    return "".join(character for character in unwrapped(text) if character.isalpha())


def _is_word(gold: str, wanted: str) -> bool:
    if gold != unwrapped(gold) or len(wanted) > 2 or wanted in _SHORT_WORDS:
        return True
    return gold[:1].isupper() and gold[1:].islower()
