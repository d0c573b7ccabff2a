"""Texts for files of the run folder, kept until the folder is known."""

from __future__ import annotations

from pathlib import Path


class FolderNotes:
    """What parts report before and while a run goes on; each text is in its file once, also after a resume."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []
        self._folder: Path | None = None
        self._silent = False

    def add(self, name: str, text: str) -> None:
        """Put the text at the end of that file, unless it stands there already."""
        if self._silent:
            return
        if self._folder is None:
            self._waiting.append((name, text))
            return
        path = self._folder / name
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text not in there:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)

    def open(self, folder: Path | None) -> None:
        """Write what waited; from now on texts are written at once. None: on this rank nothing is."""
        self._folder, self._silent = folder, folder is None
        waiting, self._waiting = self._waiting, []
        for name, text in waiting:
            self.add(name, text)
