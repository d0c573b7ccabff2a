r"""How the grader of DelTA's released code spells answers: three normal forms of LaTeX. Strings in, strings out.

Written from the rules of that grader (github.com/RUCBM/DelTA, `verl/utils/reward_score`, which follows Oat's, Hendrycks' MATH
and PRM800K), with their consequences, wanted or not: `reference_form` deletes `\cdot`, so `2\cdot 3` becomes `23`. Use `tidy`
for anything else.
"""

from __future__ import annotations

import re
from itertools import pairwise

# Removed as whole words by `mathd_form`, twice. Single letters among them are removed too.
_UNITS = """east|degree|mph|kmph|ft|m sqaure| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|tile
per|dm|lt|gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|soldier|pie|bc|excess|st|inches
noon|percent|by|gal|kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|coin|sq . m|gallon|° f|profit|minw|yr|women
feet|am|pm|hr|cu cm|square|v â € ™|are|rupee|rounds|cubic|cc|mtr|s|ohm|number|day|hour|minute|min|second|man
woman|sec|cube|mt|sq inch|mp|∏ cm ³|hectare|more|unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|liter|loss
yard|pure|year|increase|decrease|d|less|Surface|litre|pi sq m|s .|metre|meter|inch"""
_UNIT_WORDS = [re.compile(rf"(^|\W){unit}($|\W)") for unit in _UNITS.replace("\n", "|").split("|")]
_UNIT_WORDS += [re.compile(rf"(^|\W){unit}s($|\W)") for unit in _UNITS.replace("\n", "|").split("|")]
_PLAIN_UNITS = [
    re.compile(rf"{unit}(es)?(s)? *(\^[0-9]+)?")
    for unit in re.findall(
        "[a-z]+", "degree cm centimeter meter mile second minute hour day week month year foot feet inch yard"
    )
]
_TRAILING_TEXT = re.compile(r"\\text{.*?}$")
_ENCLOSED = re.compile(r"^\\text\{(?P<text>.+?)\}$")
_SHORT_FRACTION = re.compile(r"\\frac([^{}\\])(?:([^{}\\])|(?=\{))")
_SLASH = re.compile(r"(-?[0-9]+)/(-?[0-9]+)")
_GROUPED = re.compile(r"(\d),(\d\d\d)($|\D)")
_SYMBOLS = {
    "pi": "pi", "infty": "inf", "cdot": "*", "times": "*", "cup": "U", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠",
    "neq": "≠", "pm": "±", "in": "∈", "alpha": "α", "beta": "β", "theta": "θ", "ldots": "…", "dots": "…", "circ": "∘",
}  # fmt: skip


def reference_form(text: str) -> str:
    """What the released code does to the reference before it grades (`strip_string`)."""
    text = text.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    if text.startswith("\\text{") and text.endswith("}"):
        text = text.split("{", 1)[1][:-1]
    for name in ("tfrac", "dfrac", "cfrac"):
        text = text.replace(name, "frac")
    text = text.replace("\\left", "").replace("\\right", "")
    text = _TRAILING_TEXT.sub("", text).strip() or text
    text = text.replace("^{\\circ}", "").replace("^\\circ", "").strip()
    text = re.sub(r"\{(c|m)?m\}(\^(2|3))?", "", text).strip()
    text = re.sub(r"p\.m\.$", "", text).strip()
    text = re.sub(r"(\d)\s*t$", r"\1", text).strip()
    text = text.replace("\\$", "").replace("$", "").replace("x\\in", "").replace("\\%", "%")
    text = text.replace(" .", " 0.").replace("{.", "{0.").replace("\\cdot", "").replace("infinity", "\\infty")
    if "\\infty" not in text:
        text = text.replace("inf", "\\infty")
    text = re.sub(r"\\mbox{.*?}", "", text.replace("\\mathbf", "").replace("\\mathrm", ""))
    if "j" in text and "i" not in text:
        text = text.replace("j", "i")
    text = re.sub(r"(\d+)\.0+$", r"\1", re.sub(r"(\d+)\.0+([^\d])", r"\1\2", text))
    if text.startswith("."):
        text = "0" + text
    text = re.sub(r"\\(sqrt|tan)(-?[0-9.a-zA-Z]+)", r"\\\1{\2}", text)
    text = re.sub(r"\\(sqrt|tan)\s+(\w+)$", r"\\\1{\2}", text).replace(" ", "")
    return re.sub(r"(\\|,|\.)+$", "", _slash_to_fraction(_braced_fractions(text)))


def mathd_form(text: str) -> str:
    """The form that is compared as a string first (Hendrycks' MATH, with Oat's list of units)."""
    text = text.strip()
    enclosed = _ENCLOSED.search(text)
    text = enclosed["text"].strip() if enclosed else text
    text = text.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    text = text.replace("\\end{array}", "\\end{pmatrix}").replace("bmatrix", "pmatrix")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    text = (
        text.replace("\\neq", "\\ne")
        .replace("\\leq", "\\le")
        .replace("\\geq", "\\ge")
        .replace("\\left", "")
        .replace("\\right", "")
    )
    text = _TRAILING_TEXT.sub("", text).strip() or text
    for _ in range(2):
        for unit in _UNIT_WORDS:
            text = unit.sub(r"\1\2", text) or text
    text = text.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "")
    if text.count("\\text{ ") == 1:
        text = text.split("\\text{ ")[0]
    text = text.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = "0" + text if text.startswith(".") else text
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = _braced_fractions(re.sub(r"\\sqrt(?!\{)(.)", r"\\sqrt{\1}", text).replace(" ", ""))
    return "\\frac{1}{2}" if text == "0.5" else _slash_to_fraction(text)


def plain_form(text: str) -> str:
    """The form of PRM800K's grader: no LaTeX, no units, small letters, integers without separators."""
    enclosed = _ENCLOSED.search(text)
    text = enclosed["text"] if enclosed else text
    text = text.replace("\\%", "%").replace("\\$", "$").replace("$", "").replace("%", "")
    text = text.replace(" or ", " , ").replace(" and ", " , ")
    for word, power in (("million", "6"), ("billion", "9"), ("trillion", "12")):
        text = text.replace(word, f"*10^{power}")
    for unit in _PLAIN_UNITS:
        text = unit.sub("", text)
    text = re.sub(r"\^ *\\circ", "", text)
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = re.sub(r",\\! *", "", text)
    text = _without_latex(text) if "\\" in text else text
    text = re.sub(r"([0-9]) +([0-9])", r"\1+\2", re.sub("- *", "-", text))  # 7 3/4 is 7+3/4
    text = text.replace(" ", "").replace("{", "").replace("}", "").lower()
    whole = integer(text)
    return text if whole is None else str(whole)


def elements(plain: str) -> list[str]:
    """The entries of a tuple or interval in `plain_form`, or the whole as one."""
    plain = without_separators(plain)
    if not plain:
        return []
    inner = plain[1:-1]
    bracketed = len(plain) > 2 and plain[0] in "()[]" and plain[-1] in "()[]" and not any(sign in inner for sign in "()[]")
    return [entry.strip() for entry in inner.split(",")] if bracketed else [plain]


def without_separators(text: str) -> str:
    """`1,234,567` as `1234567`; the commas of tuples stay."""
    while (shorter := _GROUPED.sub(r"\1\2\3", text)) != text:
        text = shorter
    return text


def integer(text: str) -> int | None:
    """The integer that a text writes, within 1e-7, or None."""
    digits = without_separators(text)
    if not re.fullmatch(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]{1,2})?", digits) or len(digits) > 300:
        return None
    value = float(digits)
    return int(value) if abs(value - round(value)) <= 1e-7 else None


def repetitive(text: str) -> bool:
    """Whether a text of more than 128 characters repeats itself (mean common prefix of neighbouring suffixes above a fifth)."""
    size = len(text)
    if size <= 128:
        return False
    order = sorted(range(size), key=lambda start: text[start:])
    shared = sum(_common(text, first, second) for first, second in pairwise(order))
    return shared * 2 / (size * (size + 1)) > 0.2


def _common(text: str, first: int, second: int) -> int:
    length = 0
    while max(first, second) + length < len(text) and text[first + length] == text[second + length]:
        length += 1
    return length


def _braced_fractions(text: str) -> str:
    r"""`\frac12` as `\frac{1}{2}`; a command cut short is left."""
    return re.sub(
        r"\\frac([^{}\\])(?:([^{}\\])|(?=\{))", lambda hit: f"\\frac{{{hit[1]}}}" + (f"{{{hit[2]}}}" if hit[2] else ""), text
    )


def _slash_to_fraction(text: str) -> str:
    match = _SLASH.fullmatch(text)
    return f"\\frac{{{int(match[1])}}}{{{int(match[2])}}}" if match and len(text) < 300 else text


def _without_latex(text: str) -> str:
    """LaTeX as plain text: fractions as a/b, roots as sqrt(a), the common symbols by name, other commands dropped."""
    text = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac").replace("\\frac", " \\frac")
    for _ in range(8):  # from the inside out
        inner = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
        inner = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", inner)
        inner = re.sub(r"\\(?:text|mathrm|mathbf|mbox|textbf|textit|operatorname)\s*\{([^{}]*)\}", r"\1", inner)
        if inner == text:
            break
        text = inner
    text = re.sub(r"\\([A-Za-z]+)", lambda hit: _SYMBOLS.get(hit[1], ""), text)
    return re.sub(r"\\[,;:! ]", " ", text).replace("\\{", "{").replace("\\}", "}").strip()
