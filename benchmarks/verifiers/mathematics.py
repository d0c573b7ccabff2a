"""Verdicts per second and core on real answers to mathematics, beside math-verify in the same process.

    DELTA_DATA=FOLDER python benchmarks/verifiers/mathematics.py     # writes benchmarks/verifiers/mathematics.json

Four sets of (reference, completion): the labelled solutions of GSM8K (four models, short answers); the references of MATH-500
and of the competitions, boxed behind a paragraph, as they stand; the same in another spelling; the same against another
problem's reference, which is what a model that is still learning looks like. `mixed` has a quarter of each, in random order.

The arms: `MathVerifier().score`; math-verify as its users call it, `verify(parse(reference), parse(completion))`, the reference
in a box, box first, LaTeX only; and the same with each reference parsed once. Arms take turns over the same rows, so that other
load on the machine meets all of them; seconds are processor time of this process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from delta_lightning.types import Completion, Prompt, Status
from delta_lightning.verifiers.extraction.boxed import last_boxed
from delta_lightning.verifiers.mathematics.clock import same_time
from delta_lightning.verifiers.mathematics.explosive import beyond, expands, explosive
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.numerals import numeral
from delta_lightning.verifiers.mathematics.residues import same_residue
from delta_lightning.verifiers.mathematics.tidy import squeezed, tidy
from delta_lightning.verifiers.mathematics.words import same_words, words

HERE = Path(__file__).parent
SETS = ("math500", "aime_*", "hmmt_*", "brumo_*", "deepmath_sample")
PROSE = (
    "We write the equation, move all terms to one side and factor it. Both roots satisfy the condition, so we are done. " * 8
)
ROUNDS = 3

Row = tuple[str, str]  # reference, completion


def gsm8k(folder: Path) -> list[Row]:
    """Real solutions of four models; their last line, `A: 18`, is put in a box."""
    rows = []
    for line in (folder / "gsm8k" / "example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        gold = row.pop("ground_truth").rpartition("A: ")[2]
        for found in (found for name, found in row.items() if name != "question"):
            solution, _, answer = found["solution"].rpartition("A: ")
            rows.append((gold, f"{solution} \\boxed{{{answer}}}"))
    return rows


def references(folder: Path) -> list[str]:
    files = sorted(file for name in SETS for file in folder.glob(f"{name}/*.jsonl"))
    return [str(json.loads(line)["answer"]) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def respelled(gold: str) -> str:
    """The same answer as another model would write it."""
    text = gold.replace("\\frac", "\\dfrac").replace(",", ", ")
    text = text if "\\left" in text else text.replace("(", "\\left(").replace(")", "\\right)")
    return f"x = {text}" if text == gold and "=" not in gold and not gold.isdigit() else text


def rows_of(folder: Path, number: int) -> dict[str, list[Row]]:
    draw = random.Random(0)
    golds = references(folder)
    others = draw.sample(golds, len(golds))
    sets = {
        "gsm8k solutions": gsm8k(folder),
        "references as they stand": [(gold, f"{PROSE}\\boxed{{{gold}}}") for gold in golds],
        "references respelled": [(gold, f"{PROSE}\\boxed{{{respelled(gold)}}}") for gold in golds],
        "wrong references": [(gold, f"{PROSE}\\boxed{{{other}}}") for gold, other in zip(golds, others, strict=True)],
    }
    sets = {name: draw.sample(rows, min(number, len(rows))) for name, rows in sets.items()}
    size = min(map(len, sets.values()))
    mixed = [row for rows in sets.values() for row in draw.sample(rows, size)]
    return {"mixed": draw.sample(mixed, len(mixed)), **sets}


def arms() -> dict[str, Callable[[Row], bool]]:
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    part = MathVerifier()
    part.warm_up()
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    parsed: dict[str, list[object]] = {}

    def read(text: str) -> list[object]:
        return parse(text, extraction_config=config, parsing_timeout=None)

    def ours(row: Row) -> bool:
        prompt = Prompt(id="p", text="", token_ids=(1,), source="s", reference={"answer": row[0]})
        completion = Completion(
            prompt_id="p", sample_index=0, token_ids=(1,), text=row[1], finish_reason="stop", version=0, logprobs=(-1.0,),
            raw_logprobs=(-1.0,),
        )  # fmt: skip
        return part.score(prompt, completion).status is Status.CORRECT

    def theirs(row: Row) -> bool:
        return bool(verify(read(f"\\boxed{{{row[0]}}}"), read(row[1]), timeout_seconds=None))

    def theirs_cached(row: Row) -> bool:
        if row[0] not in parsed:
            parsed[row[0]] = read(f"\\boxed{{{row[0]}}}")
        return bool(verify(parsed[row[0]], read(row[1]), timeout_seconds=None))

    return {"MathVerifier": ours, "math-verify": theirs, "math-verify, references parsed once": theirs_cached}


def stage(row: Row) -> str:
    """Which stage of the default comparison decides this row."""
    answer = last_boxed(row[1])
    if answer is None:
        return "no answer"
    gold, got = tidy(row[0]), tidy(answer)
    if squeezed(gold) == squeezed(got):
        return "string"
    if numeral(gold) and numeral(got):
        return "number"
    if (numeral(gold) and words(got) is not None) or same_words(gold, got) is not None:
        return "words"
    if same_time(gold, got) is not None or same_residue(gold, got) is not None:
        return "times and residues"
    if (numeral(gold) and beyond(got)) or explosive(got) or expands(got) or expands(gold):
        return "refused as explosive"
    return "math-verify"


def chunks(rows: list[Row], size: int) -> Iterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def measure(rows: list[Row]) -> dict[str, object]:
    """Rows per second of processor time, by arm: the best of the rounds; and the rows on which the verdicts differ."""
    every = arms()
    rates: dict[str, float] = {}
    verdicts: dict[str, list[bool]] = {}
    for _ in range(ROUNDS):
        spent = Counter[str]()
        verdicts = {name: [] for name in every}
        for chunk in chunks(rows, 20):
            for name, arm in every.items():
                began = time.process_time()
                verdicts[name].extend(arm(row) for row in chunk)
                spent[name] += time.process_time() - began  # type: ignore[assignment]
        rates = {name: max(rates.get(name, 0.0), len(rows) / spent[name]) for name in every}
    ours, theirs = verdicts["MathVerifier"], verdicts["math-verify"]
    stages = Counter(stage(row) for row in rows)
    return {
        "rows": len(rows),
        "correct": sum(ours),
        "verdicts_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "times_math_verify": round(rates["MathVerifier"] / rates["math-verify"], 2),
        "times_math_verify_cached": round(rates["MathVerifier"] / rates["math-verify, references parsed once"], 2),
        "stages": {name: round(count / len(rows), 4) for name, count in stages.most_common()},
        "differ": [
            (row[0], last_boxed(row[1]), mine) for row, mine, other in zip(rows, ours, theirs, strict=True) if mine != other
        ][:40],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=600, help="rows of each set, at most")
    parser.add_argument("--out", type=Path, default=HERE / "mathematics.json")
    options = parser.parse_args()
    found = {name: measure(rows) for name, rows in rows_of(Path(os.environ["DELTA_DATA"]), options.rows).items()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()
    head = {"commit": commit, "device": f"{os.cpu_count()} cores, {platform.machine()}", "python": platform.python_version()}
    options.out.write_text(json.dumps({**head, "sets": found}, indent=1) + "\n")
    for name, result in found.items():
        print(name, result["rows"], result["verdicts_per_second"], result["times_math_verify"], result["stages"])


if __name__ == "__main__":
    main()
