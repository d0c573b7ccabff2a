"""Between [B, T] tensors and lists of rows of trained tokens."""

from __future__ import annotations

from torch import Tensor

from delta_lightning.testing.worlds import Scored


def rows_of(value_BT: Tensor, world: Scored) -> list[list[float]]:
    """The trained tokens' values of each row that has any."""
    mask_BT = world.batch.loss_mask_BT
    return [value_BT[i][mask_BT[i]].tolist() for i in range(len(mask_BT)) if bool(mask_BT[i].any())]


def advantages_of_rows(world: Scored) -> list[float]:
    """The advantages of the same rows."""
    trained_B = world.batch.loss_mask_BT.any(1)
    return world.advantages[trained_B].tolist()


def close(got: list[list[float]], wanted: list[list[float]], tolerance: float) -> None:
    """Equal row by row, token by token."""
    assert [len(row) for row in got] == [len(row) for row in wanted]
    for mine, theirs in zip(got, wanted, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert abs(a - b) <= tolerance * max(1.0, abs(b)), (got, wanted)
