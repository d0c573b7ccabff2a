"""Seconds until the first row that a resumed run draws of a `Streamed` data set, with its place in the checkpoint and without.

    python benchmarks/data/resume_stream.py --rows 1000000 --files 10

Made-up questions of about 500 bytes in JSON Lines files in a temporary folder, read up to nine tenths by windows of 10,000.
Then a reader as new as that of a resumed run goes on: from the place that a checkpoint holds, and, as from a checkpoint of an
earlier version, by reading all that comes before. Printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from delta_lightning.data import Streamed, Table
from delta_lightning.data.streamed import StreamRows

WINDOW = 10_000


def write(folder: Path, rows: int, files: int) -> None:
    draws = random.Random(0)
    for number in range(files):
        with (folder / f"train-{number:03}.jsonl").open("w", encoding="utf-8") as file:
            for row in range(number * rows // files, (number + 1) * rows // files):
                file.write(json.dumps({"question": "".join(draws.choices("abcdefgh ", k=480)), "answer": str(row)}) + "\n")
    (folder / "test.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n', encoding="utf-8")


def opened(folder: Path, rows: int) -> StreamRows:
    problems = Streamed(table=Table(path=str(folder), held_out_file="test*"), rows=rows, window=WINDOW).problems("train")
    assert isinstance(problems, StreamRows)
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.rows, given.files)
        windows = int(0.9 * given.rows) // WINDOW
        first = opened(folder, given.rows)
        for number in range(windows + 1):
            first.hold(number)
        seconds = {}
        for kind in ("place", "no place"):
            resumed, begun = opened(folder, given.rows), time.perf_counter()
            if kind == "place":
                resumed.go_to(first.place())
            row = resumed.at(windows * WINDOW)
            seconds[kind] = time.perf_counter() - begun
            assert row == first.at(windows * WINDOW)
    print(json.dumps({"rows": given.rows, "files": given.files, "before the place": windows * WINDOW, "seconds": seconds}))


if __name__ == "__main__":
    main()
