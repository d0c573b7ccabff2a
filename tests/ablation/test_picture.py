"""The picture is drawn, whatever is missing."""

from __future__ import annotations

from pathlib import Path

from delta_lightning.ablation.picture import draw
from support.ablation import GRADED, hand_made, report

PNG = b"\x89PNG\r\n"


def test_many_one_and_no_advantage(tmp_path: Path) -> None:
    none = hand_made(flat=[1.0] * 8)
    none.advantage_N.zero_()
    for name, replayed in {
        "many": hand_made(flat=[1.0] * 8, graded=GRADED, **{f"x{k}": GRADED for k in range(6)}),
        "one": hand_made(graded=GRADED),
        "none": none,
    }.items():
        draw(report(replayed), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(PNG), name
    draw(report(hand_made(graded=GRADED)), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "one").read_bytes()
