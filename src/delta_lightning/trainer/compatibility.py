"""Which parts go together. Each part answers for itself; this file only compares the answers.

| | uniform, sequence-level | token-level credit | additive credit | token-level weighting | advantages [B, T] |
|---|---|---|---|---|---|
| token losses (clipped, SAPO, CISPO, DPPO, REINFORCE, KL-Cov, VESPO) | yes | yes | yes | yes | yes |
| one sign a sequence (GSPO-token) | yes | yes | no | yes | no |
| erasing losses (GSPO, LUSPO, GMPO) | yes | no | no | no | no |
| credit that needs [B] (DelTA and others) | | | | | no |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from delta_lightning.errors import ConfigError, refuse

if TYPE_CHECKING:
    from delta_lightning.trainer.step import Parts


def check_compatible(parts: Parts) -> None:
    """Refuses parts that cancel or contradict each other, with the reason and the nearest part that works.

    Raises:
        ConfigError: the first pair of parts that is not allowed.
    """
    loss, credit, weighting, advantage = (
        type(part).__name__ for part in (parts.loss, parts.credit, parts.weighting, parts.advantage)
    )
    if parts.loss.erases_token_credit():
        keeps = f"since {loss} keeps only the mean of a sequence"
        keeper = "or a loss that keeps token credit, such as GSPOToken or ClippedSurrogate"
        if parts.credit.token_level() or parts.credit.additive():
            _refuse(
                "model.credit",
                f"sequence-level credit, {keeps}",
                credit,
                f"Use --model.credit=Uniform, SequenceMean around it, {keeper}.",
            )
        if parts.weighting.token_level():
            _refuse("model.weighting", f"Constant, {keeps}", weighting, f"Use --model.weighting=Constant, {keeper}.")
        if parts.advantage.per_token():
            _refuse("model.advantage", f"one advantage per response, {keeps}", advantage,
                    f"Use --model.advantage=GroupStandardised, {keeper}.")  # fmt: skip
    if parts.loss.single_signed():
        one = f"one sign of the advantage within a sequence, since {loss} clips a whole sequence by it"
        if parts.credit.additive():
            _refuse("model.credit", one, f"{credit}, which adds to the advantage",
                    "Use a multiplicative assigner such as Delta, or --model.loss=ClippedSurrogate.")  # fmt: skip
        if parts.advantage.per_token():
            _refuse("model.advantage", one, f"{advantage}, with an advantage per token",
                    "Use --model.advantage=GroupStandardised, or --model.loss=ClippedSurrogate.")  # fmt: skip
    if parts.credit.per_response() and parts.advantage.per_token():
        _refuse("model.credit", f"an assigner that takes an advantage per token, since {advantage} gives one", credit,
                "Use --model.advantage=GroupStandardised, or --model.credit=Uniform.")  # fmt: skip


def _refuse(where: str, wanted: str, got: str, remedy: str) -> None:
    refuse(ConfigError(where, wanted=wanted, got=got, remedy=remedy))
