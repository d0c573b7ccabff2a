from __future__ import annotations

import re

import pytest

from delta_lightning.data import Arithmetic
from delta_lightning.data.arithmetic import _unrank, worked
from delta_lightning.errors import ConfigError


def operands(question: str) -> tuple[int, int]:
    left, right = re.fullmatch(r"(\d+)\+(\d+)=", question).groups()
    return int(left), int(right)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (47, 385, r"7+5=12 4+8+1=13 0+3+1=4 \boxed{432}"),
        (0, 0, r"0+0=0 \boxed{0}"),
        (999, 1, r"9+1=10 9+0+1=10 9+0+1=10 \boxed{1000}"),
        (50, 8, r"0+8=8 5+0=5 \boxed{58}"),
    ],
)
def test_worked_solution(first: int, second: int, text: str) -> None:
    assert worked(first, second) == text


def test_solutions_are_right_and_short() -> None:
    for problem in Arithmetic(digits=3, num_train=400, num_held_out=100).problems("train"):
        first, second = operands(problem.question)
        assert problem.reference == {"answer": str(first + second)}
        assert problem.solution.endswith(f"\\boxed{{{first + second}}}")
        # Every step is a true equation, and the last digits of the steps, backwards, spell the sum.
        steps = [step.split("=") for step in problem.solution.split(" \\boxed")[0].split()]
        assert all(sum(map(int, left.split("+"))) == int(right) for left, right in steps)
        spelled = steps[-1][1] + "".join(right[-1] for _, right in reversed(steps[:-1]))
        assert int(spelled) == first + second
        assert len(problem.question + problem.solution) <= 45


@pytest.mark.parametrize("digits", [1, 3])
def test_splits_share_no_unordered_pair_and_ids_are_unique(digits: int) -> None:
    source = Arithmetic(digits=digits, num_train=40, num_held_out=15)
    splits = [source.problems(name) for name in ("train", "held_out")]
    pairs = [tuple(sorted(operands(problem.question))) for problems in splits for problem in problems]
    assert len(set(pairs)) == len(pairs) == 55  # with one digit that is every pair there is
    assert all(0 <= low <= high < 10**digits for low, high in pairs)
    assert len({problem.id for problems in splits for problem in problems}) == 55


def test_both_orders_of_operands_occur() -> None:
    pairs = [operands(problem.question) for problem in Arithmetic(num_train=200).problems("train")]
    assert 60 < sum(first < second for first, second in pairs) < 140


def test_same_fields_same_problems_and_seed_changes_them() -> None:
    source = Arithmetic(num_train=50, num_held_out=20)
    assert source.problems("train") == Arithmetic(num_train=50, num_held_out=20).problems("train")
    assert source.problems("train") != Arithmetic(num_train=50, num_held_out=20, seed=1).problems("train")
    assert source.problems("held_out") == Arithmetic(num_train=500, num_held_out=20).problems("held_out")


def test_first_problem_is_the_same_on_every_machine() -> None:
    assert Arithmetic(num_train=3, num_held_out=1).problems("held_out")[0].question == FIRST


FIRST = "258+94="


def test_unrank_counts_all_pairs() -> None:
    assert [_unrank(index) for index in range(6)] == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    assert _unrank(10**18 * (10**18 + 1) // 2 - 1) == (10**18 - 1, 10**18 - 1)


def test_more_problems_than_pairs_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 55"):
        Arithmetic(digits=1, num_train=50, num_held_out=6).check()
    Arithmetic(digits=1, num_train=49, num_held_out=6).check()


@pytest.mark.parametrize("fields", [{"digits": 0}, {"digits": 10}, {"num_train": 0}, {"num_held_out": 0}])
def test_range_checks(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Arithmetic(**fields)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out"):
        Arithmetic().problems("test")
