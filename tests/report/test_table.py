"""Tables, against tables written by hand."""

from __future__ import annotations

from delta_lightning.report import markdown_table, text_table


def test_text_columns_are_aligned_numbers_to_the_right() -> None:
    rows = [["", "before", "after"], ["accuracy", "0.31", "0.625", "note"], [], ["length", "9", "-12"]]
    assert text_table(rows, indent=" ").splitlines() == [
        "           before  after",
        " accuracy    0.31  0.625  note",
        "",
        " length         9    -12",
    ]
    assert text_table([]) == ""


def test_markdown() -> None:
    table = markdown_table(["arm", "s"], [["a|b", "1.5"], ["c", "n/a"]])
    assert table == "| arm | s |\n| --- | ---: |\n| a\\|b | 1.5 |\n| c | n/a |\n"
    assert markdown_table(["arm"], []) == "| arm |\n| --- |\n"
