"""Tokens that right answers use and wrong ones do not, found by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.scopes import advantages_of
from delta_lightning.errors import require
from delta_lightning.functional.key_tokens import Answers, Rule, key_token_values
from delta_lightning.functional.logprobs import scatter_tokens
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, RolloutBatch

Form = Literal["additive", "multiplicative"]


def _additive(values_BT: Tensor, advantages: Tensor, mask_BT: Tensor) -> Credit:
    """A + V."""
    return Credit(scale_BT=mask_BT.float(), shift_BT=values_BT.float())


def _multiplicative(values_BT: Tensor, advantages: Tensor, mask_BT: Tensor) -> Credit:
    """A max(0, 1 + sign(A) V)."""
    scale_BT = (1 + advantages.sign() * values_BT).clamp(min=0)
    return Credit(scale_BT=(scale_BT * mask_BT).float())


_FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Credit]] = {"additive": _additive, "multiplicative": _multiplicative}


@dataclass(frozen=True, kw_only=True)
class KTAE(CreditAssigner):
    """Token advantage A + V, V of the token's id among the answers to its prompt (Sun et al., arXiv 2505.16826).

    a right and b wrong answers contain the id, c right and d wrong ones do not; an answer counts once.
    V = 2 top (sigmoid(w (h + tf_weight tf)) - 1/2), w = (fisher_weight F + gain_weight IG) / (fisher_weight + gain_weight).
    F = exp(-2 p), p the two-sided p of Fisher's exact test, 0 where p = 1; IG = H(right) - H(right | contains), bits;
    h = asin sqrt(a / (a + c)) - asin sqrt(b / (b + d)); tf compares saturated frequencies, see docs/credit_groups.md.

    Needs nothing of the model. Groups with only right or only wrong answers get V = 0. Counted are trained tokens of answers
    with a verdict; the others get 0. The verifier's reward decides what is right, whatever shaping does to it. Every
    occurrence of an id gets the same V. The result is float32.

    Args:
        form: "additive", the paper's, which may turn the sign of an advantage; "multiplicative", ours: A max(0, 1 + sign(A) V).
        fisher_weight: of F, at least 0. gain_weight: of IG, at least 0; not both 0. The published script sets 2, the
            released code ignores it and uses 1, so 1 is what ran.
        tf_weight: of the frequencies, at least 0; 0 leaves them out. An id that only one side uses has a large tf, and
            V near top or -top.
        top: bound on |V|, above 0, in units of the advantage.
        correct_above: an answer is right if the verifier's reward is above this.
        ignored_ids: ids that get V = 0, such as a tokenizer's end of sequence (the released code: 151643, Qwen2.5's).
        end_token: "ignored" gives V = 0 to the last token of an answer that was not cut at the length limit, its end of
            sequence whatever the tokenizer; "counted" treats it as any other.

    Raises:
        ConfigError: a field out of range.
    """

    form: Form = "additive"
    fisher_weight: float = 1.0
    gain_weight: float = 1.0
    tf_weight: float = 1.0
    top: float = 1.0
    correct_above: float = 0.0
    ignored_ids: tuple[int, ...] = ()
    end_token: Literal["ignored", "counted"] = "ignored"

    def __post_init__(self) -> None:
        for name in ("fisher_weight", "gain_weight", "tf_weight"):
            value = getattr(self, name)
            require(value >= 0, f"credit.KTAE.{name}", wanted="at least 0", got=value, remedy="What ran in the paper is 1.")
        both = self.fisher_weight + self.gain_weight
        require(both > 0, "credit.KTAE.fisher_weight", wanted="above 0, or a gain_weight above 0", got=self.fisher_weight,
                remedy="Use 1 for both.")  # fmt: skip
        require(self.top > 0, "credit.KTAE.top", wanted="above 0", got=self.top, remedy="The paper uses 1.")
        require(self.form in _FORMS, "credit.KTAE.form", wanted=" or ".join(_FORMS), got=self.form, remedy="The paper adds.")
        choice = self.end_token
        require(choice in ("ignored", "counted"), "credit.KTAE.end_token", wanted="ignored or counted", got=choice,
                remedy="The released code ignores it.")  # fmt: skip

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Scale and, in the additive form, shift, [B, T], float32."""
        batch = view.batch
        counted_BT = batch.loss_mask_BT & batch.valid_B[:, None]
        answers = Answers(
            ids_N=batch.token_ids_BT[counted_BT],
            rows_N=counted_BT.nonzero()[:, 0],
            groups_B=batch.group_ids_B,
            right_B=batch.verdict_rewards_B > self.correct_above,
            all_sum=view.all_sum,
        )
        rule = Rule(self.fisher_weight, self.gain_weight, self.tf_weight, self.top)
        values_BT = scatter_tokens(key_token_values(answers, rule), counted_BT)
        values_BT = torch.where(self._ignored_BT(batch), 0.0, values_BT)
        return _FORMS[self.form](values_BT, advantages_of(view), batch.loss_mask_BT)

    def _ignored_BT(self, batch: RolloutBatch) -> Tensor:
        ids_BT = batch.token_ids_BT
        ignored_BT = torch.isin(ids_BT, torch.tensor(self.ignored_ids, dtype=ids_BT.dtype, device=ids_BT.device))
        if self.end_token == "counted":
            return ignored_BT
        columns_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        last_BT = columns_T == batch.attention_mask_BT.sum(1, keepdim=True) - 1
        return ignored_BT | (last_BT & ~batch.truncated_B[:, None])

    def additive(self) -> bool:
        """In the additive form."""
        return self.form == "additive"
