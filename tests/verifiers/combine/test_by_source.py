from __future__ import annotations

import dataclasses
import pickle

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.choice import MultipleChoice
from delta_lightning.verifiers.combine.by_source import BySource
from delta_lightning.verifiers.combine.weighted_sum import WeightedSum
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.pool import VerifierPool
from support.members import WARMED, Says
from support.verdicts import completion_of, prompt_with

TWO = BySource(verifiers={"gsm8k": Says(name="m", limit=2.0), "mbpp": Says(name="c", reads="tests", limit=5.0)})
WITH_DEFAULT = BySource(verifiers={"gsm8k": Says(name="m")}, default=Says(name="rest", deeper="x", reads="tests"))


def scored(verifier: BySource, source: str) -> Verdict:
    return verifier.score(dataclasses.replace(prompt_with(1), source=source), completion_of("text"))


def test_each_data_set_has_its_own() -> None:
    assert scored(TWO, "gsm8k").reason == "says m" and scored(TWO, "mbpp").reason == "says c"
    assert scored(WITH_DEFAULT, "aime").reason == "says rest"


def test_an_unknown_one_is_our_failure_and_refused_at_load() -> None:
    verdict = scored(TWO, "aime")
    assert verdict.status is Status.ERROR and verdict.reward == 0.0 and "'aime'" in verdict.reason
    with pytest.raises(ConfigError, match=r"there are gsm8k, mbpp, got problems of 'aime'"):
        TWO.route("aime")


def test_routes_to_what_the_verifier_routes_to() -> None:
    assert TWO.route("mbpp") == TWO.verifiers["mbpp"]
    assert WITH_DEFAULT.route("aime") == Says(name="x:aime")
    nested = BySource(verifiers={"a": TWO}, default=TWO)
    assert nested.route("gsm8k") == TWO.verifiers["gsm8k"]
    inside = WeightedSum(members={"answer": TWO, "format": Says(name="f")})
    assert inside.route("mbpp") == WeightedSum(members={"answer": TWO.verifiers["mbpp"], "format": Says(name="f")})


def test_what_is_known_without_a_source() -> None:
    assert TWO.reference_fields() == {"answer", "tests"} and WITH_DEFAULT.reference_fields() == {"answer", "tests"}
    assert TWO.refuse_reference({"answer": "bad", "tests": "1"}) is None  # one of them can use it
    assert TWO.refuse_reference({"answer": "bad", "tests": "bad"}) == "gsm8k: it is bad; mbpp: it is bad"
    assert TWO.limit_seconds() == 5.0 and WITH_DEFAULT.limit_seconds() is None
    assert tuple(WITH_DEFAULT.check()) == ("gsm8k: line of m", "default: line of rest")
    with pytest.raises(ConfigError, match="mbpp: sandbox"):
        BySource(verifiers={"mbpp": Says(here=False)}).check()
    WARMED.clear()
    WITH_DEFAULT.warm_up()
    assert WARMED == ["m", "rest"]


def test_no_verifier() -> None:
    with pytest.raises(ConfigError, match=r"BySource\.verifiers"):
        BySource(verifiers={}, default=Says())


def test_a_mixed_batch_in_worker_processes() -> None:
    verifier = BySource(verifiers={"gsm8k": MathVerifier(), "gpqa": MultipleChoice()})
    assert pickle.loads(pickle.dumps(verifier)) == verifier
    wanted = {}
    with VerifierPool(verifier, workers=1, timeout=20.0) as pool:
        for key in range(20):
            source, answer, text = ("gsm8k", "42", r"\boxed{42}") if key % 2 else ("gpqa", "C", "The answer is (C).")
            wanted[key] = Status.CORRECT if key % 4 < 2 else Status.NO_ANSWER
            prompt = dataclasses.replace(prompt_with(answer), source=source)
            pool.submit(key, prompt, completion_of(text if key % 4 < 2 else "no"))
        assert {key: verdict.status for key, verdict in pool.drain()} == wanted
