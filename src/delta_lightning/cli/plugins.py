"""Parts from other distributions: importing them is what makes their short names known."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

GROUP = "delta_lightning.plugins"


def found() -> list[EntryPoint]:
    """Entry points of the group, by name; nothing is imported."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def listing() -> str:
    """What `delta-lightning plugins` prints."""
    points = found()
    if not points:
        return f"No plug-ins: no installed distribution has an entry point in the group {GROUP}.\n"
    return "".join(f"{point.name} = {point.value}{_origin(point)}\n" for point in points)


def load_plugins(say: Callable[[str], None]) -> None:
    """Import every plug-in. One that cannot be imported costs a line and is skipped, so that it cannot break other runs.

    Args:
        say: prints one line.
    """
    for point in found():
        try:
            point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- foreign code; reported in one line
            reason = " ".join(str(error).split()) or "no reason given"
            say(f"plug-in {point.name} = {point.value}{_origin(point)} skipped: {type(error).__name__}: {reason}")


def _origin(point: EntryPoint) -> str:
    return f" ({point.dist.name} {point.dist.version})" if point.dist is not None else ""
