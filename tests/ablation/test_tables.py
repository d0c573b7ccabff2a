"""Tables for people."""

from __future__ import annotations

from delta_lightning.ablation.tables import coefficients_table, matrix_table, page, terminal, tokens_table
from support.ablation import GRADED, hand_made, report

SUMMARY = report(hand_made(flat=[1.0] * 8, graded=GRADED), [[4.0, 1.0], [1.0, 1.0]], min_count=1)


def test_coefficients() -> None:
    header, rows = coefficients_table(SUMMARY)
    assert all(len(row) == len(header) for row in rows)
    graded = dict(zip(header, rows[1], strict=True))
    assert graded["assigner"] == "2 graded" and graded["mean A>0"] == "2.500" and graded["mean A<0"] == "-0.500"
    assert graded["gradient norm"] == "1" and graded["50%"] == "1.500"


def test_matrix() -> None:
    assert matrix_table(["a", "b"], [[1.0, None], [None, -0.25]]) == (
        ["", "1", "2"], [["1 a", "1.000", "-"], ["2 b", "-", "-0.250"]],
    )  # fmt: skip


def test_tokens() -> None:
    _, rows = tokens_table(SUMMARY["assigners"]["graded"]["tokens"]["signal"])
    assert rows == [["`'a'`", "2.000", "4", "`'b'`", "0.500", "2"]]


def test_sides_are_not_mixed_where_people_look_first() -> None:
    """Surprise against DelTA on a tiny model: +0.8 on one side, -0.8 on the other, 0.02 over both."""
    found = report(hand_made(a=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 1.0], b=[1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 1.0, 1.0]))
    one, other = terminal(found).split("rank correlation of coefficients, ")[1:]
    assert one.startswith("tokens with A > 0") and "-1.000" not in one
    assert other.startswith("tokens with A < 0") and other.count("-1.000") == 2
    written = page(found)
    assert (
        written.index("### Tokens with A > 0")
        < written.index("### Tokens with A < 0")
        < written.index("### Tokens with A != 0")
    )


def test_terminal_and_page_hold_every_assigner() -> None:
    said, written = terminal(SUMMARY), page(SUMMARY)
    for text in (said, written):
        assert "1 flat" in text and "2 graded" in text and "0.500" in text
    assert "1. `flat()`" in written and "8 trained tokens, 4 of them with A > 0, 2 with A < 0, 2 with A = 0" in written
    assert "### graded, tokens with A > 0" in written and "### flat, tokens" not in written
