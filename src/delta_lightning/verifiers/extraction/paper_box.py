"""Where DelTA's released code looks for the answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from delta_lightning.verifiers.extraction.extraction import Extraction


@dataclass(frozen=True, kw_only=True)
class PaperBox(Extraction):
    r"""The last `\boxed`, if it is written `\boxed{` and its braces balance; otherwise there is no answer.

    As the code released with DelTA does it. Unlike `LastBox` it never goes back to an earlier box when the last one is cut
    off, does not know `\fbox`, and counts escaped braces as braces.
    """

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        start = text.rfind("\\boxed")
        if start < 0 or not text.startswith("\\boxed{", start):
            return None
        depth = 0
        for place in re.finditer(r"[{}]", text[start:]):
            depth += 1 if place[0] == "{" else -1
            if depth == 0:
                return text[start + len("\\boxed{") : start + place.start()]
        return None
