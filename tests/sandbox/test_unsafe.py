"""The rung without isolation says so, and still ends what it started."""

from __future__ import annotations

from delta_lightning.sandbox.unsafe import Unsafe


def test_it_promises_only_what_control_groups_hold() -> None:
    assert Unsafe().promises() == frozenset()
    assert Unsafe(memory_group=True, process_group=True).promises() == {"memory", "processes"}
    assert Unsafe().missing[0].startswith("NO ISOLATION")
    assert Unsafe().obstacle() is None
