r"""The words of a question, so that two spellings of one question are the same words."""

from __future__ import annotations

import re
import unicodedata

SUPERSCRIPTS = str.maketrans({character: f"^{digit}" for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})
SYMBOLS = {
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "√": r"\sqrt ",
    "π": r"\pi ", "∞": r"\infty ", "∑": r"\sum ", "∫": r"\int ", "∈": r"\in ", "°": r"\circ ", "−": "-", "–": "-", "—": " ",
    "…": r"\dots ", "→": r"\to ",
}  # fmt: skip
SAME = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "dfrac": "frac", "tfrac": "frac",
    "cfrac": "frac", "ldots": "dots", "cdots": "dots", "degree": "circ", "rightarrow": "to", "lt": "<", "gt": ">", "ast": "*",
}  # fmt: skip
# How a formula is set, not what it says.
LAYOUT = frozenset(
    {
        "left", "right", "big", "bigl", "bigr", "bigg", "biggl", "biggr", "displaystyle", "textstyle", "limits", "quad",
        "qquad", "text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mathsf", "operatorname", "mbox", "hspace",
        "vspace", "begin", "end", "hline", "label", "nonumber", "boxed", "middle",
    }
)  # fmt: skip
THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!)(?=\d{3}(?!\d))")
SPACES = re.compile(r"\\[,;:! ]|\\\\|~")
HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")
WORD = re.compile(r"\\([a-z]+)|(\d+(?:\.\d+)?|[^\W\d_]+|[-+*/=<>^!%|])")


def words(text: str) -> list[str]:
    r"""Words, numbers and operators of a text, in lower case, without punctuation, spaces, braces and LaTeX's layout.

    A LaTeX command is a word without its backslash, under one name where there are several (\dfrac and \frac); Unicode's signs
    are those of LaTeX (x² and x^2, ≤ and \leq); digits are grouped by nothing (1,000 and 1000); a hyphen between words goes.
    What is left out cannot tell two questions apart: subscripts (x_1 and x1) and the order of operations in braces.
    """
    text = text.translate(SUPERSCRIPTS)
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command)
    text = unicodedata.normalize("NFKC", text).casefold()
    text = HYPHEN.sub(" ", SPACES.sub(" ", THOUSANDS.sub("", text)))
    found: list[str] = []
    for match in WORD.finditer(text):
        command, word = match.groups()
        if command is None:
            found.append(word)
        elif command not in LAYOUT:
            found.append(SAME.get(command, command))
    return found
