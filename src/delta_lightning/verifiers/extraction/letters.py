r"""Which choice letter a completion names: read strictly, so that no letter inside a word or of an article counts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from delta_lightning.verifiers.extraction.boxed import last_boxed
from delta_lightning.verifiers.mathematics.tidy import unwrapped

LETTERS = "ABCDEFGHIJ"
_SHORT = 400  # characters of an answer that is one letter or one option
_DECORATION = " \t\r\n*_`$\"'\u201c\u201d"
# "answer is", "answer:", "answer - "; what stands between the phrase and the letter is decoration and filler.
_PHRASE = re.compile(
    r"\b(?:answer|choice|option)\b[ \t]*+(?:choice\b|option\b|letter\b)?[ \t*_`]*+"
    r"(?:is\b|was\b|would be\b|should be\b|=|:|\u2014|-)"
    r"[\s*_`:]*+(?P<not>not\b|neither\b|n't\b)?"
    r"(?:(?:the|clearly|therefore|thus|probably|simply|definitely|indeed|correct|right|best|final|option|choice|answer|letter|is)\b[\s:*_`]*+){0,4}+",
    re.IGNORECASE,
)
_MARK = r"\(\s*(?P<inside>[A-Ja-j])\s*\\?\)|\[\s*(?P<square>[A-Ja-j])\s*\]|(?P<bare>[A-J])(?![\w'\u2019-])"
_HERE = re.compile(rf"[\s*_`$\"'\u201c]*+(?:\\(?:text|mathrm|textbf|mathbf)\{{|\\(?=\())?(?:{_MARK})")
_ANOTHER = re.compile(
    rf"[\s*_`$\"'\u201d)]*+(?:or|and|/|,|&|\+)[\s*_`$\"'\u201c]*+(?:or\b|and\b)?\s*+(?:{_MARK})(?![ \t]+[a-z])"
)
_WORD_FOLLOWS = re.compile(r"[*_`\"'\u201d]*+[ \t]++(?!because\b|since\b|as\b|which\b|with\b|given\b|for\b)[A-Za-z]")
_LONE = re.compile(r"[(\[]?\s*([A-Ja-j])\s*[)\].:,]*")
_HEADED = re.compile(r"[(\[]?\s*([A-Ja-j])\s*[)\].:]+[ \t].*")
_HEADS = re.compile(r"(?<!\w)[(\[]?[A-Ja-j][)\].:](?=\s)")


def choice_letter(text: str) -> str | None:
    r"""The letter A to J that the text gives as its answer, in upper case, or None: none, or more than one.

    Asked in this order: the content of the last balanced box (`C`, `(C)`, `\text{C}`, `C. Paris`); what the last phrase such
    as "the answer is (C)" or "Answer: C" names; the last line, if it is a lone letter (`C`, `(c)`, `**C.**`); a text of one
    line that begins like one option (`C) Paris`). A phrase that names two letters, or says "not", has no answer. Lower case
    counts only in brackets, in a box or alone. `A` and `I` in front of a word are words.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        letter = _alone(unwrapped(boxed))
        if letter is not None:
            return letter
    for found in _phrases(text):
        return found or None
    bare = text.strip(_DECORATION)
    return _lone(bare.rpartition("\n")[2]) if "\n" in bare else _alone(bare)


def _phrases(text: str) -> Iterator[str]:
    """What the last phrase that can be read says: a letter, or "" where it is ambiguous or denied. Nothing without one."""
    for phrase in reversed(list(_PHRASE.finditer(text))):
        if phrase["not"]:
            yield ""
            return
        mark = _HERE.match(text, phrase.end())
        if mark is None:
            continue
        letter = _letter(mark)
        if mark["bare"] and letter in "AI" and _WORD_FOLLOWS.match(text, mark.end()):
            continue  # "the answer is a good one", "the answer is I think"
        other = _ANOTHER.match(text, mark.end())
        yield "" if other is not None and _letter(other) != letter else letter
        return


def _letter(mark: re.Match[str]) -> str:
    return (mark["inside"] or mark["square"] or mark["bare"]).upper()


def _lone(text: str) -> str | None:
    """The letter where the text is nothing else."""
    bare = text.strip(_DECORATION)
    lone = _LONE.fullmatch(bare) if len(bare) < _SHORT else None
    return lone[1].upper() if lone else None


def _alone(text: str) -> str | None:
    """The letter where the text is one, or one option with its letter in front."""
    bare = text.strip(_DECORATION)
    headed = None
    if len(bare) < _SHORT and len(_HEADS.findall(bare + " ")) == 1:
        headed = _HEADED.fullmatch(bare)
    return headed[1].upper() if headed else _lone(bare)
