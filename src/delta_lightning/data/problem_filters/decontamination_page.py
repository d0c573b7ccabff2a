"""What decontamination found, for people: a page in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from delta_lightning.data.overlap import Match, Question
from delta_lightning.types import Problem

SHOWN, EXCERPT = 20, 160


def page(
    found: Sequence[tuple[Problem, Match]], problems: int, questions: Sequence[Question], n: int, min_share: float, action: str,
    more: str,
) -> str:  # fmt: skip
    """The page: counts for each evaluation set, then the pairs with the largest shares, and what is said of more of them."""
    total, hit, flagged = Counter(q.name for q in questions), Counter[str](), Counter(m.question.name for _, m in found)
    for name, _ in {(match.question.name, match.question.id) for _, match in found}:
        hit[name] += 1
    lines = [
        "# Decontamination", "",
        f"{len(found):,} of {problems:,} training problems cover at least {min_share:g} of the words of an evaluation question "
        f"by common {n}-grams; they are {'left out' if action == 'drop' else 'kept'}. Each is counted with the "
        "question that it covers most of.",
        "", "| evaluation set | its questions | of these found in training | training problems |", "| --- | --- | --- | --- |",
        *(f"| {name} | {total[name]:,} | {hit[name]:,} | {flagged[name]:,} |" for name in total),
    ]  # fmt: skip
    if found:
        lines += ["", "| share | training problem | evaluation question |", "| --- | --- | --- |"]
        ranked = sorted(found, key=lambda pair: -pair[1].share)
        for problem, match in ranked[:SHOWN]:
            lines.append(
                f"| {match.share:.2f} | {_cell(problem.id)}: {_cell(problem.question)} | "
                f"{match.question.name} {_cell(match.question.id)}: {_cell(match.question.text)} |"
            )
        if len(found) > SHOWN:
            lines += ["", f"{len(found) - SHOWN:,} more {more}."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= EXCERPT else line[: EXCERPT - 3] + "..."
