"""Where the program stands in a completion."""

from __future__ import annotations

import re
import textwrap
from abc import ABC, abstractmethod
from dataclasses import dataclass

from delta_lightning.errors import require
from delta_lightning.verifiers.extraction.boxed import after_thinking

# Possessive quantifiers: without them, a long line that is no fence after all would take quadratic time.
_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^\n`]*+$", re.MULTILINE)
_PYTHON = ("python", "python3", "py")


class ProgramSource(ABC):
    """How a program is read out of a completion. Pure text, linear time; nothing is parsed as Python here."""

    @abstractmethod
    def find(self, prompt: str, completion: str) -> str | None:
        """The program's text, or None where there is none."""


@dataclass(frozen=True, kw_only=True)
class FencedBlock(ProgramSource):
    """The last fenced block that is marked as Python; without one, the last that is not marked as anything.

    Fences are three or more backticks or tildes on a line of their own. A block that is never closed (a completion that was
    cut) is no program, and neither is an empty one. A block that stands indented, as in a list, is moved to the left.

    Args:
        after_think: look only behind the last `</think>`; a completion without that tag then has no program.
    """

    after_think: bool = False

    def find(self, prompt: str, completion: str) -> str | None:
        """See the class."""
        text = after_thinking(completion) if self.after_think else completion
        if text is None:
            return None
        best: dict[bool, str] = {}  # by whether it is marked as Python
        for mark, block in _blocks(text):
            if block.strip() and (mark in _PYTHON or not mark):
                best[bool(mark)] = block
        return best.get(True, best.get(False))


@dataclass(frozen=True, kw_only=True)
class Continuation(ProgramSource):
    r"""The prompt and the completion together, for base models that go on where a prompt such as HumanEval's stops.

    The completion is cut where the first of `stop` begins. Use the template `{question}`, so that the prompt is Python.

    Args:
        stop: texts that end the program, none of them empty. The defaults are those of the Codex paper: the next definition,
            comment or statement that is not indented, and a fence.
    """

    stop: tuple[str, ...] = ("\nclass ", "\ndef ", "\n#", "\n@", "\nif ", "\nprint", "\n```", "<|")

    def __post_init__(self) -> None:
        require(all(self.stop), "programs.stop", wanted="texts that are not empty", got=self.stop, remedy="Leave out ''.")

    def find(self, prompt: str, completion: str) -> str | None:
        """See the class."""
        ends = [at for at in (completion.find(stop) for stop in self.stop) if at >= 0]
        body = completion[: min(ends, default=len(completion))]
        return prompt + body if body.strip() else None


@dataclass(frozen=True, kw_only=True)
class WholeText(ProgramSource):
    """The completion is the program.

    Args:
        after_think: only what stands behind the last `</think>`; a completion without that tag then has no program.
    """

    after_think: bool = False

    def find(self, prompt: str, completion: str) -> str | None:
        """See the class."""
        text = after_thinking(completion) if self.after_think else completion
        return text if text is not None and text.strip() else None


def _blocks(text: str) -> list[tuple[str, str]]:
    """(mark in lower case, content) of every closed block, in order."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
            continue
        closes = not fence[3] and fence[2][0] == opened[2][0] and len(fence[2]) >= len(opened[2])
        if closes:
            content = text[opened.end() + 1 : fence.start()]
            blocks.append((opened[3].lower(), textwrap.dedent(content) if opened[1] else content))
            opened = None
        elif fence[3]:
            opened = fence  # the block before it was never closed
    return blocks
