r"""Unicode mathematics as LaTeX: signs, fractions, superscripts, full-width and CJK punctuation. Strings in, strings out."""

from __future__ import annotations

import re

_FRACTIONS = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5", "⅙": "1/6",
    "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SIGNS = {
    "−": "-", "–": "-", "‐": "-", "－": "-", "＋": "+", "×": "\\times ", "·": "\\times ", "⋅": "\\times ", "÷": "/",
    "∕": "/", "⁄": "/", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ",
    "≠": "\\neq ", "≈": "\\approx ", "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "∅": "\\varnothing ", "°": "^\\circ ", "…": "\\ldots ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}", "ℕ": "\\mathbb{N}", "ℂ": "\\mathbb{C}", "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ",
    "β": "\\beta ", "γ": "\\gamma ", "δ": "\\delta ", "λ": "\\lambda ", "μ": "\\mu ", "σ": "\\sigma ", "φ": "\\phi ",
    "ω": "\\omega ", "（": "(", "）": ")", "［": "[", "］": "]", "｛": "\\{", "｝": "\\}", "，": ",", "、": ",", "。": ".",
    "．": ".", "：": ":", "；": ";", "％": "\\%", "＝": "=", "＜": "<", "＞": ">", "！": "!", "？": "?", "＄": "\\$", "／": "/",
    "＊": "*", "＾": "^", "“": '"', "”": '"', "‘": "'", "’": "'", "\u200b": "", "\ufeff": "", "\u2061": "",
    "\u2062": "", "\u2063": ",",
}  # fmt: skip
_TABLE = str.maketrans(
    _SIGNS
    | {fraction: "\\frac{{{}}}{{{}}}".format(*parts.split("/")) for fraction, parts in _FRACTIONS.items()}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_ROOT = re.compile(r"(√|∛)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([0-9]+(?:\.[0-9]+)?|[A-Za-z]))")


def to_latex(text: str) -> str:
    """The text with its Unicode mathematics written in LaTeX; ASCII text comes back as it is, at once."""
    if text.isascii():
        return text
    text = _ROOT.sub(_root, text)
    text = _RAISED_RUN.sub(lambda run: "^{" + "".join(_RAISED[sign] for sign in run[0]) + "}", text)
    text = _LOWERED_RUN.sub(lambda run: "_{" + "".join(_LOWERED[sign] for sign in run[0]) + "}", text)
    return text.translate(_TABLE)


def _root(match: re.Match[str]) -> str:
    content = match[2] or match[3] or match[4] or ""
    return ("\\sqrt{" if match[1] == "√" else "\\sqrt[3]{") + content + "}"
