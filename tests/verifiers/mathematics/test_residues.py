from __future__ import annotations

import pytest

from delta_lightning.verifiers.mathematics.residues import is_residue, same_residue


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("3 \\pmod{7}", "3 \\pmod 7", True),
        ("3 \\pmod{7}", "10 \\pmod 7", True),
        ("3 \\pmod{7}", "-4 \\pmod{7}", True),
        ("3 \\pmod{7}", "4 \\pmod{7}", False),
        ("3 \\pmod{7}", "3 \\pmod{5}", False),
        ("3 \\pmod{7}", "3", True),
        ("3 \\pmod{7}", "10", False),  # without its modulus it is another number
        ("3 \\pmod{7}", "x", False),
        ("3", "3 \\pmod 7", False),
        ("3 (\\mod 7)", "3 \\bmod 7", True),
        ("x \\equiv 3 \\pmod 7", "3 \\pmod 7", True),
        ("x \\equiv 3 \\pmod 7", "y \\equiv 3 \\pmod 7", False),
        ("3 \\pmod{0}", "3 \\pmod{0}", False),
        ("x+1", "3 \\pmod 7", None),
        ("3", "4", None),
    ],
)
def test_same_residue(gold: str, answer: str, same: bool | None) -> None:
    assert same_residue(gold, answer) is same


def test_which_references_need_no_parser() -> None:
    assert is_residue("3 \\pmod{7}")
    assert not is_residue("3")
    assert not is_residue("x \\pmod 7")
