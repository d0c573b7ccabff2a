"""Association between the occurrence of a token id and the correctness of answers, from 2 x 2 tables (KTAE, arXiv 2505.16826).

A table counts the answers to one prompt: of `correct` right and `wrong` wrong ones, `right_with` and `wrong_with` contain
the id. Counts are tensors of one shape [K], of any dtype; results are float64. With no right or no wrong answer nothing is
associated: p = 1, information gain 0, effect size 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape
from delta_lightning.functional.sides import AllSum, group_units, identity

TIE = 1e-7  # relative: tables as probable as the observed one, but for rounding
CERTAIN = 1e-9
BLOCK = 1 << 22  # cells of a table, or tokens, that are looked at together
SATURATION, LENGTH_SHARE, SHARE_FLOOR = 2.0, 0.5, 1e-5


@dataclass(frozen=True)
class Tables:
    """Counts of answers, each [K]."""

    right_with: Tensor
    wrong_with: Tensor
    correct: Tensor
    wrong: Tensor

    def __post_init__(self) -> None:
        for name in ("right_with", "wrong_with", "correct", "wrong"):
            object.__setattr__(self, name, getattr(self, name).double())
        check_same_shape(right_with=self.right_with, wrong_with=self.wrong_with, correct=self.correct, wrong=self.wrong)

    @property
    def two_sided(self) -> Tensor:
        """Bool: there are right and wrong answers."""
        return (self.correct > 0) & (self.wrong > 0)


def fisher_p(tables: Tables) -> Tensor:
    """Two-sided p of Fisher's exact test, in (0, 1].

    The sum over all tables of the same margins that are at most as probable as the observed one. Probabilities come from
    log-gamma, so a table counts as equally probable within 1e-7, relative, as in R's fisher.test: a mirror image must not drop
    out by rounding. All tables of a margin are one axis, of at most 1 + answers to a prompt.
    """
    if not len(tables.correct):
        return tables.correct
    correct, wrong, drawn = tables.correct[:, None], tables.wrong[:, None], (tables.right_with + tables.wrong_with)[:, None]
    support_S = torch.arange(int(tables.correct.max()) + 1, dtype=torch.float64, device=correct.device)
    possible_KS = (support_S <= torch.minimum(drawn, correct)) & (drawn - support_S <= wrong)
    inside_KS = torch.where(possible_KS, support_S, tables.right_with[:, None])

    def log_probability(right: Tensor) -> Tensor:
        return _log_choose(correct, right) + _log_choose(wrong, drawn - right) - _log_choose(correct + wrong, drawn)

    observed = log_probability(tables.right_with[:, None])
    chances_KS = torch.where(possible_KS, log_probability(inside_KS), -math.inf)
    p = torch.where(chances_KS <= observed + math.log1p(TIE), chances_KS, -math.inf).exp().sum(1)
    return torch.where(tables.two_sided, p.clamp(max=1), 1.0)


def fisher_score(p: Tensor) -> Tensor:
    """exp(-2 p), and 0 where p is 1 within 1e-9."""
    return torch.where(p < 1 - CERTAIN, torch.exp(-2 * p), 0.0)


def information_gain(tables: Tables) -> Tensor:
    """H(correct) - H(correct | contains the id), bits, at least 0."""
    with_id = tables.right_with + tables.wrong_with
    total = tables.correct + tables.wrong
    without = total - with_id
    before = _binary_entropy(tables.correct, total)
    after = with_id * _binary_entropy(tables.right_with, with_id)
    after = after + without * _binary_entropy(tables.correct - tables.right_with, without)
    gain = before - after / total.clamp(min=1)
    return torch.where(tables.two_sided, gain.clamp(min=0), 0.0)


def effect_size(tables: Tables) -> Tensor:
    """Direction and size: asin sqrt(share of right answers with the id) - asin sqrt(that of wrong ones), in [-pi/2, pi/2]."""
    right, wrong = tables.right_with / tables.correct.clamp(min=1), tables.wrong_with / tables.wrong.clamp(min=1)
    return torch.where(tables.two_sided, torch.asin(right.sqrt()) - torch.asin(wrong.sqrt()), 0.0)


def strength(tables: Tables, *, fisher_weight: float, gain_weight: float) -> Tensor:
    """(fisher_weight F + gain_weight IG) / (fisher_weight + gain_weight), in [0, 1]."""
    score, gain = fisher_score(fisher_p(tables)), information_gain(tables)
    return (fisher_weight * score + gain_weight * gain) / (fisher_weight + gain_weight)


def frequency_term(right_uses: Tensor, wrong_uses: Tensor, right_tokens: Tensor, wrong_tokens: Tensor) -> Tensor:
    """f+ / (f- + 1e-5) - f- / (f+ + 1e-5), the id's saturated frequencies among right and among wrong answers.

    f = 3 s / (s + 2 (0.5 + 0.5 L)), s = the id's share of the side's tokens, L = the side's tokens over the mean of both sides.
    An id that one side never uses gets |f| 1e5, which saturates what it enters. All arguments are counts of tokens, of one
    shape; the result is 0 where a side has none.
    """
    right_tokens, wrong_tokens = right_tokens.double(), wrong_tokens.double()
    mean = ((right_tokens + wrong_tokens) / 2).clamp(min=1)

    def frequency(uses: Tensor, tokens: Tensor) -> Tensor:
        share = uses.double() / tokens.clamp(min=1)
        return share * (SATURATION + 1) / (share + SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * tokens / mean))

    right, wrong = frequency(right_uses, right_tokens), frequency(wrong_uses, wrong_tokens)
    both = (right_tokens > 0) & (wrong_tokens > 0)
    return torch.where(both, right / (wrong + SHARE_FLOOR) - wrong / (right + SHARE_FLOOR), 0.0)


@dataclass(frozen=True)
class Rule:
    """What goes into a key-token value: 2 top (sigmoid(strength (h + tf_weight tf)) - 1/2), in (-top, top)."""

    fisher_weight: float = 1.0
    gain_weight: float = 1.0
    tf_weight: float = 1.0
    top: float = 1.0

    def values(self, tables: Tables, frequencies: Tensor | None = None) -> Tensor:
        """[K], from tables of which most are equal; `frequencies` are those of `frequency_term`, if they have a weight."""
        strength, direction = self._by_distinct_table(tables)
        if frequencies is not None:
            direction = direction + self.tf_weight * frequencies
        return self.top * torch.tanh(strength * direction / 2)

    def _by_distinct_table(self, tables: Tables) -> tuple[Tensor, Tensor]:
        """Few of millions of tables differ: at most (right + 1)(wrong + 1) for each split of a group into right and wrong."""
        columns = torch.stack([tables.right_with, tables.wrong_with, tables.correct, tables.wrong]).long()
        base = int(columns.max()) + 1 if columns.numel() else 1
        codes = columns[0]
        for column in columns[1:]:
            codes = codes * base + column
        codes, inverse = torch.unique(codes, return_inverse=True)
        digits = []
        for _ in range(4):
            digits.append(codes % base)
            codes = codes // base
        distinct = Tables(*reversed(digits))
        mixed = strength(distinct, fisher_weight=self.fisher_weight, gain_weight=self.gain_weight)
        return mixed[inverse], effect_size(distinct)[inverse]


@dataclass(frozen=True)
class Answers:
    """The trained tokens of this rank's answers that have a verdict.

    Attributes:
        ids_N, rows_N: int64, id and row of each token. groups_B: int64, prompt of each row. right_B: bool.
        all_sum: sum over ranks; the answers to a prompt may lie on several.
    """

    ids_N: Tensor
    rows_N: Tensor
    groups_B: Tensor
    right_B: Tensor
    all_sum: AllSum = identity

    def __post_init__(self) -> None:
        check_rank("ids_N", self.ids_N, 1)
        check_same_shape(ids_N=self.ids_N, rows_N=self.rows_N)
        check_same_shape(groups_B=self.groups_B, right_B=self.right_B)


def key_token_values(answers: Answers, rule: Rule) -> Tensor:
    """The key-token value of each token's id among the answers to its prompt, [N] float64.

    An answer counts once for each id that it contains, however often. Groups are tabulated block by block, each block a table
    of counts by group, side and id (ids that occur nowhere are left out), summed over ranks: 4 bytes a count, at most 2^22
    counts by kind and side or a single group, whichever is more. Counts are integers: exact in any order.
    """
    units_B, num_groups = group_units(answers.groups_B, all_sum=answers.all_sum)
    ids_N, num_ids = group_units(answers.ids_N, all_sum=answers.all_sum)
    sides_B = 2 * units_B + (~answers.right_B).long()
    rows_N = answers.rows_N
    contained_B = torch.zeros_like(answers.right_B)
    contained_B[rows_N] = True
    counts = [torch.bincount(sides, minlength=2 * num_groups) for sides in (sides_B[contained_B], sides_B[rows_N])]
    answers_U2, tokens_U2 = answers.all_sum(torch.stack(counts)).view(2, num_groups, 2)
    values_N = torch.zeros(ids_N.shape, dtype=torch.float64, device=ids_N.device)
    for block in _blocks(num_groups, num_ids, int(tokens_U2.sum())):
        here = ((units_B[rows_N] >= block.start) & (units_B[rows_N] < block.stop)).nonzero()[:, 0]
        shape = (block.stop - block.start, 2, num_ids)
        first = 2 * block.start
        contained, uses = _block_counts(ids_N[here], rows_N[here], sides_B - first, shape, answers.all_sum, rule.tf_weight != 0)
        values_UI = _block_values(contained, uses, answers_U2[block], tokens_U2[block], rule)
        values_N[here] = values_UI[units_B[rows_N[here]] - block.start, ids_N[here]]
    return values_N


def _blocks(num_groups: int, num_ids: int, tokens: int) -> Iterator[slice]:
    """Groups that are looked at together: the same on every rank, since every argument is."""
    size = max(1, min(BLOCK // num_ids, num_groups * BLOCK // max(tokens, 1)))
    for start in range(0, num_groups, size):
        yield slice(start, min(num_groups, start + size))


def _block_counts(
    ids_N: Tensor, rows_N: Tensor, sides_B: Tensor, shape: tuple[int, int, int], all_sum: AllSum, with_uses: bool
) -> tuple[Tensor, Tensor | None]:
    """Answers that contain an id and, if asked for, how often they use it, by group, side and id; one collective."""
    num_ids = shape[2]
    pairs = torch.unique(rows_N * num_ids + ids_N)
    kinds = [sides_B[pairs // num_ids] * num_ids + pairs % num_ids]
    if with_uses:
        kinds.append(sides_B[rows_N] * num_ids + ids_N)
    counts = torch.stack([torch.bincount(cells, minlength=math.prod(shape)).int() for cells in kinds])
    contained, *uses = all_sum(counts).view(len(kinds), *shape)
    return contained, uses[0] if uses else None


def _block_values(contained_U2I: Tensor, uses_U2I: Tensor | None, answers_U2: Tensor, tokens_U2: Tensor, rule: Rule) -> Tensor:
    """[U, I] float64, 0 where a group never uses an id."""
    groups_K, ids_K = contained_U2I.sum(1).nonzero().unbind(1)
    right_with, wrong_with = contained_U2I[groups_K, :, ids_K].unbind(1)
    tables = Tables(right_with, wrong_with, *answers_U2[groups_K].unbind(1))
    frequencies = None
    if uses_U2I is not None:
        frequencies = frequency_term(*uses_U2I[groups_K, :, ids_K].unbind(1), *tokens_U2[groups_K].unbind(1))
    values_UI = torch.zeros(contained_U2I[:, 0].shape, dtype=torch.float64, device=contained_U2I.device)
    values_UI[groups_K, ids_K] = rule.values(tables, frequencies)
    return values_UI


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _binary_entropy(part: Tensor, whole: Tensor) -> Tensor:
    """Bits; 0 where `whole` is 0."""
    share = part / whole.clamp(min=1)
    return -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / math.log(2)
