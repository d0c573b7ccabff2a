"""Refused pairs of parts: the reason, and the nearest part that works. Every combination is in tests/contract/test_grid.py."""

from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.compatibility import check_compatible
from support.grid import parts_of

CASES = [
    (
        {"loss": "GSPO", "credit": "Delta"},
        "model.credit: wanted sequence-level credit, since GSPO keeps only the mean of a sequence, got Delta. "
        "Use --model.credit=Uniform, SequenceMean around it, or a loss that keeps token credit, such as GSPOToken or "
        "ClippedSurrogate.",
    ),
    ({"loss": "GMPO", "weighting": "FIPO"}, "model.weighting: wanted Constant, since GMPO keeps only the mean of a sequence"),
    ({"loss": "LUSPO", "estimator": "OptimalTokenBaseline"}, "model.advantage: wanted one advantage per response"),
    ({"loss": "GSPOToken", "credit": "KTAE"}, "got KTAE, which adds to the advantage. Use a multiplicative assigner"),
    ({"loss": "GSPOToken", "estimator": "OptimalTokenBaseline"}, "model.advantage: wanted one sign of the advantage within"),
    ({"credit": "Delta", "estimator": "OptimalTokenBaseline"}, "since OptimalTokenBaseline gives one, got Delta."),
    ({"credit": "Mask", "estimator": "OptimalTokenBaseline"}, "since OptimalTokenBaseline gives one, got Mask."),
]


@pytest.mark.parametrize(("row", "message"), CASES, ids=[" ".join(row.values()) for row, _ in CASES])
def test_refused(row: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_compatible(parts_of({"credit": "Uniform"} | row))
    assert message in str(refused.value)


@pytest.mark.parametrize("row", [{"loss": "GSPO", "credit": "SequenceMean"}, {"loss": "GSPOToken", "credit": "Delta"}])
def test_allowed(row: dict[str, str]) -> None:
    check_compatible(parts_of(row))
