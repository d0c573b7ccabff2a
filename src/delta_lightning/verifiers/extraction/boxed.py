r"""Where the answer stands in a completion: the last balanced `\boxed{...}`. Pure text, linear time on any string."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*\{")
# A box that opens; an escaped character (so that `\{` and `\}` are no braces); a bare brace.
_TOKEN = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
_END_OF_THINKING = "</think>"


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{...}` or `\fbox{...}` whose braces balance, or None.

    "Last" goes by where a box opens, so of nested boxes the inner one counts. A box that is never closed (a truncated
    answer) is passed over. Escaped braces `\{` `\}` do not count; a doubled backslash before `boxed` is accepted, as in
    texts that went through JSON twice. Linear in the length of the text, however it nests.
    """
    best: tuple[int, int, int] | None = None  # where the box opens, where its content begins, where it ends
    stack: list[tuple[int, int] | None] = []  # the open braces: of a box (opening, content), or None
    first = _BOX.search(text)
    for token in _TOKEN.finditer(text, first.start()) if first else ():
        kind = token.lastgroup
        if kind == "box":
            stack.append((token.start(), token.end()))
        elif kind == "open":
            stack.append(None)
        elif kind == "close" and stack:
            box = stack.pop()
            if box is not None and (best is None or box[0] > best[0]):
                best = (*box, token.start())
    return None if best is None else text[best[1] : best[2]]


def after_thinking(text: str) -> str | None:
    """What follows the last `</think>`, or None where the tag is missing: the thinking never ended."""
    _, tag, rest = text.rpartition(_END_OF_THINKING)
    return rest if tag else None
