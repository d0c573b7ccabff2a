from __future__ import annotations

from pathlib import Path

from delta_lightning.trainer.folder_notes import FolderNotes


def test_texts_wait_for_the_folder_and_stand_there_once(tmp_path: Path) -> None:
    for _ in range(2):  # begun, and resumed
        notes = FolderNotes()
        notes.add("a.txt", "one\n")
        notes.open(tmp_path / "run")
        notes.add("a.txt", "two\n")
        notes.add("b.txt", "three\n")
    assert (tmp_path / "run" / "a.txt").read_text(encoding="utf-8") == "one\ntwo\n"
    assert (tmp_path / "run" / "b.txt").read_text(encoding="utf-8") == "three\n"


def test_on_another_rank_nothing_is_written(tmp_path: Path) -> None:
    notes = FolderNotes()
    notes.add("a.txt", "one\n")
    notes.open(None)
    notes.add("a.txt", "two\n")
    assert list(tmp_path.iterdir()) == []
