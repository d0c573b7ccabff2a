"""Laws of verifiers. Texts are judged in a real `VerifierPool`, so that one that hangs or dies is a finding, not the end."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.exact import ExactMatch
from delta_lightning.verifiers.extraction.extraction import Extraction
from delta_lightning.verifiers.pool import VerifierPool

HEAVY = ("torch", "transformers", "lightning", "vllm", "datasets", "jsonargparse")
ELSEWHERE = (Status.TIMEOUT, Status.UNAVAILABLE)  # depend on the clock or on a service: no law binds them to the text
_LIMIT = 5.0  # seconds for one verdict where the verifier has no limit of its own; a TIMEOUT breaks no law
_IMPORT = "import sys, importlib; sys.path[:] = {path!r}; importlib.import_module({module!r}); print(*sys.modules)"

# What models do write, and what nobody should. Each must get a verdict.
NASTY: tuple[str, ...] = (
    "", " \n\t ", "\x00", "42\x00", "\ud800 and \udfff", bytes(range(256)).decode("latin-1"), "\u202e42\u202c \u200b\u2066",
    "\U0001f600" * 1000, "a" + "\u0301" * 10_000, "\r\n\u2028\x85" * 500, "\ufeff42\ufffe", "a" * 1_000_000, "9" * 10_000,
    "-" * 10_000, "\\" * 10_001, "(" * 20_000, "{" * 20_000 + "}" * 20_000, "[" * 100_000, '{"a": ' * 3_000,
    "\\boxed{" * 5_000, "\\boxed{" + "9" * 5_000 + "}", "\\boxed{}", "\\boxed{nan}", "\\boxed{9^{9^{9^9}}}",
    "\\boxed{" + "\\frac{1}{" * 200 + "1" + "}" * 200 + "}", "</think>" * 2_000, "<think>" * 2_000, "nan", "inf", "1e999999",
    "0x1p99999", "null", "true", "```python\n" * 2_000, "```\n```", "```json\n{\n```", "Answer:", "Answer: A or B",
    "%s%n{0}{question}$(id)`id`", "'; DROP TABLE t; --", "__import__('os')._exit(0)", "\\boxed{__import__('os')._exit(0)}",
)  # fmt: skip
MALFORMED: tuple[object, ...] = (
    None,
    "",
    " ",
    [],
    {},
    [None],
    -1,
    1.5,
    math.nan,
    True,
    b"\xff",
    "\ud800",
    {"a": object},
    "x" * 100_000,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to judge, and what the law says of its status."""

    what: str
    reference: Mapping[str, Any]
    text: str
    source: str
    wanted: frozenset[Status]


def check_verifier(part: Verifier, examples: Sequence[Example] = ()) -> None:
    """The laws of `Verifier`.

    Any text gives a verdict, with a usable reference never ERROR; the same text gives the same one, in any process and order;
    rewards, components and measures are finite; a missing reference is ERROR, by a refused one nothing is CORRECT, and one
    that was accepted is no ERROR; what `score` gets it leaves as it was; only declared reference fields are read; the
    module imports nothing heavy; examples get the status that they name.

    Args:
        part: the verifier.
        examples: with usable references; none takes those that the verifier brings, or, where it brings none, the answer
            "42" in every field of the reference.

    Raises:
        AssertionError: with the law that is broken, and by what.
    """
    examples = tuple(examples) or _own_examples(part)
    _check_import(type(part))
    _check_answers_about_itself(part)
    for example in examples:
        _check_reference(part, example)
    _check_inputs_stay(part, examples[0])
    _judge_all(part, [case for example in examples for case in _cases(part, example)])
    _judge_all(part, list(_nasty(examples[0])))


def check_extraction(part: Extraction) -> None:
    """Any text has an answer or none: the laws of a verifier that uses this extraction."""
    for text in ("", "42", "\\boxed{42}", "a\nb"):
        try:
            answer: object = part.answer(text, lambda candidate: True)
        except Exception as error:
            raise AssertionError(f"answer() of {text!r} raises {type(error).__name__}: {error}") from error
        assert answer is None or isinstance(answer, str), f"answer() of {text!r} is of type {type(answer).__name__}"
    check_verifier(ExactMatch(extraction=part))


def _own_examples(part: Verifier) -> tuple[Example, ...]:
    """Those that it brings, or a guess that it must be able to use."""
    remedy = "give one with --reference='{...}', or the verifier a method examples(); --source names its data set"
    if brought := part.examples():
        return brought
    guess = Example(reference=dict.fromkeys(part.reference_fields(), "42"), text="42", status=None)
    try:
        reason = part.route(guess.source).refuse_reference(guess.reference)
    except ConfigError as error:
        raise AssertionError(f"no reference to try: {error} {remedy}") from error
    assert reason is None, f"no reference to try: {dict(guess.reference)} is refused ({reason}); {remedy}"
    return (guess,)


def _check_import(cls: type) -> None:
    """Worker processes start fast and stay small."""
    if cls.__module__ == "__main__":
        return
    program = _IMPORT.format(path=sys.path, module=cls.__module__)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{cls.__module__} cannot be imported by itself: {done.stderr.strip().splitlines()[-1:]}"
    heavy = [name for name in HEAVY if name in done.stdout.split()]
    assert not heavy, f"importing {cls.__module__} imports {', '.join(heavy)}: import heavy packages in warm_up() and functions"


def _check_answers_about_itself(part: Verifier) -> None:
    fields: object = part.reference_fields()  # a stranger's may be anything
    limit, lines = part.limit_seconds(), part.check()
    assert isinstance(fields, frozenset) and all(isinstance(field, str) for field in fields), "reference_fields(): not names"
    assert limit is None or 0 < limit < math.inf, f"limit_seconds(): {limit!r} is neither None nor seconds > 0"
    assert not isinstance(lines, str) and all(isinstance(line, str) for line in lines), "check(): not a sequence of lines"


def _check_reference(part: Verifier, example: Example) -> None:
    """An example's reference is usable, and `refuse_reference` has an opinion of anything."""
    judge = part.route(example.source)
    missing = sorted(judge.reference_fields() - example.reference.keys())
    assert not missing, f"an example's reference lacks {', '.join(missing)}"
    reason = judge.refuse_reference(example.reference)
    assert reason is None, f"refuse_reference() refuses an example's reference {_short(example.reference)}: {reason}"
    for what, reference in _spoilt(judge, example.reference):
        try:
            refused = judge.refuse_reference(reference)
        except Exception as error:
            raise AssertionError(f"refuse_reference() with {what} raises {type(error).__name__}: {error}") from error
        assert refused is None or isinstance(refused, str), f"refuse_reference() with {what}: neither a reason nor None"
        assert refused is not None or not what.startswith("no "), f"refuse_reference() accepts a reference with {what}"


def _check_inputs_stay(part: Verifier, example: Example) -> None:
    prompt, completion = _prompt(example.reference, example.source), _completion(example.text)
    before = copy.deepcopy((prompt, completion))
    part.warm_up()
    part.score(prompt, completion)
    assert (prompt, completion) == before, "score() changes the prompt or the completion that it is given"


def _spoilt(judge: Verifier, reference: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """References in which one field is missing or holds something odd."""
    for field in sorted(judge.reference_fields()):
        yield f"no {field}", {name: value for name, value in reference.items() if name != field}
        for value in MALFORMED:
            yield f"{field} = {_short(value)}", {**reference, field: value}


def _cases(part: Verifier, example: Example) -> list[Case]:
    """The example itself first, then what may change its verdict and what may not."""
    judge = part.route(example.source)
    only = {name: value for name, value in example.reference.items() if name in judge.reference_fields()}
    right = _but(Status.ERROR) if example.status is None else frozenset({example.status, *ELSEWHERE})
    cases = [
        Case(what=what, reference=reference, text=example.text, source=example.source, wanted=right)
        for what, reference in (("an example", example.reference), ("only declared fields", only))
    ]
    for what, reference in _spoilt(judge, example.reference):
        refused = judge.refuse_reference(reference) is not None
        wanted = _but(Status.CORRECT) if refused else _but(Status.ERROR)
        if what.startswith("no "):
            # A verdict that does not depend on the reference, such as that of a closed gate, may stay.
            wanted = right - {Status.CORRECT} | {Status.ERROR}
            wanted = wanted - {Status.INCORRECT} if example.status is None else wanted
        how = "which refuse_reference() refuses" if refused else "which refuse_reference() accepts"
        cases.append(Case(what=f"{what}, {how}", reference=reference, text=example.text, source=example.source, wanted=wanted))
    return cases


def _nasty(example: Example) -> Iterable[Case]:
    for text in NASTY:
        what = f"the text {_short(text)}"
        yield Case(what=what, reference=example.reference, text=text, source=example.source, wanted=_but(Status.ERROR))


def _but(*statuses: Status) -> frozenset[Status]:
    return frozenset(Status) - {*statuses}


def _judge_all(part: Verifier, cases: Sequence[Case]) -> None:
    """Every case twice, in two processes and in opposite orders."""
    limit = (part.limit_seconds() or _LIMIT - 1) + 1
    found: dict[tuple[int, int], Verdict] = {}
    try:
        with VerifierPool(part, workers=2, timeout=limit) as pool:
            for turn, order in enumerate((range(len(cases)), reversed(range(len(cases))))):
                for place in order:
                    case = cases[place]
                    pool.submit((turn, place), _prompt(case.reference, case.source), _completion(case.text))
            for key, verdict in pool.drain():
                found[key] = verdict  # type: ignore[index]
    except RunError as error:
        raise AssertionError(f"it does not run in worker processes: {error}") from error
    for place, case in enumerate(cases):
        first, second = found[0, place], found[1, place]
        assert first.status in case.wanted, f"{case.what}: {first.status.name} ({first.reason[:200]})"
        _check_numbers(first, case)
        if first.status not in ELSEWHERE and second.status not in ELSEWHERE:
            same = _content(first) == _content(second)
            assert same, f"{case.what}: two verdicts, {_content(first)} and {_content(second)}"


def _check_numbers(verdict: Verdict, case: Case) -> None:
    named: dict[str, object] = {"reward": verdict.reward, **verdict.components, **verdict.measures}
    odd = {name: value for name, value in named.items() if not isinstance(value, int | float) or not math.isfinite(value)}
    assert not odd, f"{case.what}: not finite numbers: {odd}"
    failed = verdict.status in (Status.ERROR, Status.UNAVAILABLE)
    assert not failed or verdict.reward == 0, f"{case.what}: {verdict.status.name} with the reward {verdict.reward}"


def _content(verdict: Verdict) -> tuple[object, ...]:
    weights = None if verdict.token_weights is None else tuple(verdict.token_weights)
    return verdict.status.name, verdict.reward, dict(verdict.components), weights


def _prompt(reference: Mapping[str, Any], source: str) -> Prompt:
    return Prompt(id="example/1", text="The question?", token_ids=(1, 2), source=source, reference=reference)


def _completion(text: str) -> Completion:
    return Completion(prompt_id="example/1", sample_index=0, token_ids=(3, 4, 5), text=text, finish_reason="stop", version=0,
                      logprobs=(-0.5,) * 3, raw_logprobs=(-0.5,) * 3)  # fmt: skip


def _short(value: object) -> str:
    text = repr(value[:41]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
