from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from delta_lightning.credit import EntropyTopK
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import degenerate, mixed
from delta_lightning.types import Need
from support.reference_credit import top_entropies
from support.token_rows import close, rows_of


@pytest.mark.parametrize("denominator", ["kept", "all"])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_reference_and_obeys_the_laws(dtype: torch.dtype, share: float, denominator: Literal["kept", "all"]) -> None:
    part, world = EntropyTopK(share=share, denominator=denominator), mixed(dtype)
    check_credit(part)
    wanted = top_entropies(rows_of(world.entropies_BT, world), share, denominator)
    close(rows_of(part.credit(View(world)).scale_BT, world), wanted, 1e-6)


def test_ties_by_rounding_are_broken_by_place_on_any_number_of_ranks() -> None:
    """First tokens of one prompt's answers have equal entropies, up to how their sums were rounded."""
    world = mixed()
    noise_BT = 1e-15 * torch.randn(world.entropies_BT.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = replace(world, entropies_BT=torch.full_like(world.entropies_BT, 0.7))
    rounded = replace(world, entropies_BT=0.7 + noise_BT)
    wanted = EntropyTopK().credit(View(exact)).scale_BT
    assert torch.equal(EntropyTopK().credit(View(rounded)).scale_BT, wanted)
    first = torch.nonzero(wanted.flatten())[:, 0]
    assert len(first) == 7, "ceil(0.2 * 35)"
    halves = [torch.arange(0, 12, 2), torch.arange(1, 12, 2)]

    def work(rank: int, ranks: ThreadRank) -> torch.Tensor:
        return EntropyTopK().credit(View(rounded.rows(halves[rank]), ranks=ranks)).scale_BT

    assert torch.equal(torch.cat(run_ranks(2, work))[torch.cat(halves).argsort()], wanted)


def test_what_it_needs_and_degenerate_batches() -> None:
    assert EntropyTopK().needs() == {Need.ENTROPY} and EntropyTopK(share=1).needs() == frozenset()
    assert not EntropyTopK(share=1).token_level()
    one = EntropyTopK().credit(View(degenerate()["one token"])).scale_BT
    assert one[one != 0].tolist() == [1.0], "a share above 0 keeps at least one token"


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1.5}, {"denominator": "some"}])
def test_refusals(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"credit.EntropyTopK"):
        EntropyTopK(**options)  # type: ignore[arg-type]
