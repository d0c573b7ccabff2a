r"""One spelling for the many ways to write the same LaTeX. Strings in, strings out; nothing is evaluated."""

from __future__ import annotations

import re

from delta_lightning.verifiers.mathematics.plain import to_latex

TEXT_COMMAND = r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)\s*"
# `f(x) = x \text{ for all } x \in \mathbb{R}`: what it is said of, at the end; names only.
_FOR_ALL = (
    r",?\s*(?:\\(?:text|mbox|textrm)\{\s*for (?:all|any|every|each)(?: real| integers?| real numbers?)?\s*\}"
    r"|\\forall(?![A-Za-z]))"
    r"\s*[A-Za-z](?:\s*,\s*[A-Za-z])*(?:\s*\\in\s*\\mathbb\s*\{?[A-Z]\}?(?:[_^](?:[+*]|\{[^{}]*\}))?)?\s*\Z"
)
# Each rule keeps the meaning. Order matters: spacing first, then commands, then what rendering ignores.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\((.*)\\\)|\\\[(.*)\\\]", r"\1\2"),
        (r"(?<!\\)\$", ""),
        (r"(?<!\\)\\!\s*", ""),  # negative space: 11,\! 111; a doubled backslash ends a matrix row
        (r"\s*\{\s*,\s*\}\s*", ","),  # 10{,}000
        (r"(?<=[0-9])\\,(?=[0-9])", ""),  # thin space in a number: 4\,200
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~", " "),
        (r"\\(?:displaystyle|left|right|big|Big|bigg|Bigg|bigl|bigr|limits)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:normalsize|[lL]arge|LARGE|[hH]uge|textstyle|(?:text)?color\s*\{[A-Za-z]+\})(?![A-Za-z])", ""),
        (r"\\underline\{([^{}]*)\}", r"\1"),
        (r"\\(?:black)?square\s*\Z|\\qed\s*\Z", ""),  # the end of a proof
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"(?<![\\A-Za-z])(sqrt|frac)(?=\s*\{)", r"\\\1"),  # a lost backslash
        (r"\\frac\s*([0-9])\s*([0-9])(?![0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9])", r"\\frac\1{\2}"),
        (r"\\sqrt\s*([0-9A-Za-z])(?![A-Za-z])", r"\\sqrt{\1}"),
        (r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])|\\degree(?![A-Za-z])", r"^\\circ "),
        (r"\\(?:emptyset|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\varnothing "),
        (r"\\(?:text|mathrm|operatorname)\{\s*infinity\s*\}|(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty "),
        (r"\\(?:mathbf|boldsymbol|bm|mathit)\{([A-Za-z])\}|\\mathrm\{([ei])\}", r"\1\2"),
        (r"\\langle(?![A-Za-z])", "("),
        (r"\\rangle(?![A-Za-z])", ")"),
        (r"\\sqrt\{-1\}", "i"),
        (r"\\leq(?![A-Za-z])|\\leqslant(?![A-Za-z])|<=", r"\\le "),
        (r"\\geq(?![A-Za-z])|\\geqslant(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(?:dots|cdots|ldots|dotsc)(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\cdot(?![A-Za-z])", r"\\times "),
        (r"([_^])\{([0-9A-Za-z])\}", r"\1\2"),
        (r"\\log_\{?e(?![A-Za-z])\}?", r"\\ln "),
        (rf"\A\s*{TEXT_COMMAND}\{{\s*(-?[0-9][0-9.,]*)\s+([A-Za-z][^{{}}]*)\}}", r"\1\\text{ \2}"),  # \text{12 apples}
        (_FOR_ALL, ""),
        (r"\s+", " "),
    )
)
# A space is kept between two letters or digits: `1 1/2` is not `11/2`, and `no w` is not `now`.
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])")
_AFTER_COMMAND = re.compile(r"(\\[A-Za-z]+) (?=[A-Za-z])")
_SIMPLE = re.compile(r"-?[0-9]+(?:\.[0-9]+)?|[A-Za-z]")
_FRENCH = re.compile(r"[\[\](]([^\[\]();,]*)[;,]([^\[\]();,]*)[\[\])]")
_WRAPPER = re.compile(TEXT_COMMAND + r"\{([^{}]*)\}")


def tidy(text: str) -> str:
    r"""The text with one spelling for spaces, fractions, delimiters, degrees and relations, trailing full stop removed.

    Two texts with the same tidy form mean the same; the converse does not hold. Linear in the length but for the rules'
    own bounded look-ahead; callers bound the length.
    """
    if _SIMPLE.fullmatch(text):  # most answers: nothing to do
        return text
    text = to_latex(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".,;").strip()
    return _interval(text) if text[:1] in "[](" and text[-1:] in "[])" else text


def squeezed(text: str) -> str:
    r"""`tidy` text without the spaces that do not separate letters or digits, for comparison as a string."""
    kept = _AFTER_COMMAND.sub("\\1\x00", text)
    return _IDLE_SPACE.sub("", kept).replace("\x00", " ")


def unwrapped(text: str) -> str:
    r"""`\text{a}` and its relatives replaced by their content, one layer after the other (four at most)."""
    for _ in range(4):
        bare = _WRAPPER.sub(r"\1", text)
        if bare == text:
            break
        text = bare
    return text


def _interval(text: str) -> str:
    """`]0,1[` and `[0;1]` as `(0,1)` and `[0,1]`; everything else as it is."""
    match = _FRENCH.fullmatch(text)
    if match is None or (";" not in text and text[0] != "]" and text[-1] != "["):
        return text
    return ("[" if text[0] == "[" else "(") + f"{match[1]},{match[2]}" + ("]" if text[-1] == "]" else ")")
