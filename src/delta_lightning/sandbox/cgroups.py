"""Control groups of a slot's lanes: all processes of a cell together stay below its memory and its number of processes.

Version 1 (a folder per controller) and version 2 (one tree) are both used where this process may write. A group is made when a
slot is opened, used for every cell of the lane, and removed when the slot is closed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(kw_only=True)
class LaneGroup:
    """The groups of one lane.

    Args:
        folders: the group's folder per controller, `memory` and `pids`; one of them, both (the same in version 2) or none.
        version: 1 or 2.
    """

    folders: dict[str, Path]
    version: int
    _doors: list[int] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)

    def doors(self) -> list[int]:
        """Open `cgroup.procs` files; a process that writes 0 to one moves itself in, whatever it may see or own."""
        if not self._doors:
            for folder in dict.fromkeys(self.folders.values()):
                self._doors.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        return self._doors

    def limit(self, *, memory_mib: int, processes: int) -> None:
        """Set the limits of the next cell. OSError when the group refuses them."""
        wanted = {"memory": memory_mib << 20, "pids": processes}
        for controller, folder in self.folders.items():
            value = wanted[controller]
            if self._last.get(controller) == value:
                continue
            if controller == "pids":
                (folder / "pids.max").write_text(str(value))
            else:
                _limit_memory(folder, self.version, value)
            self._last[controller] = value

    def kills(self) -> int:
        """How often the kernel has ended a process of this group for its memory; 0 where it does not say."""
        folder = self.folders.get("memory")
        if folder is None:
            return 0
        try:
            text = (folder / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        except FileNotFoundError:
            return 0  # the sandbox was closed, and its groups removed, while the caller still held the cell
        return sum(int(line.split()[1]) for line in text.splitlines() if line.split()[0] == "oom_kill")

    def empty(self) -> bool:
        """Whether no process is in it."""
        return all(not (folder / "cgroup.procs").read_text().strip() for folder in self.folders.values())

    def sweep(self, seconds: float) -> bool:
        """Kill whatever is in it, again and again until it is empty; False when it is not within `seconds`.

        For rungs whose cells have no pid namespace that ends with them.
        """
        deadline = time.monotonic() + seconds
        while not self.empty():
            if time.monotonic() > deadline:
                return False
            for folder in self.folders.values():
                for process in (folder / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)
            time.sleep(0.001)
        return True

    def remove(self) -> None:
        """Close and remove the groups; one that is not empty yet stays and is used again by the slot's next holder."""
        for door in self._doors:
            os.close(door)
        self._doors.clear()
        for folder in dict.fromkeys(self.folders.values()):
            try:
                folder.rmdir()
            except OSError:
                continue  # still in use: see above


def lane_groups(name: str, lanes: int, root: Path = ROOT, own: Path = Path("/proc/self/cgroup")) -> list[LaneGroup]:
    """A group per lane, made where this process may; a group without folders where it may not.

    Args:
        name: of the slot, unique on this machine among this user's slots.
        lanes: how many.
        root: where the control groups are mounted.
        own: the file that names this process's groups.
    """
    places = {line.split(":", 2)[1]: line.strip().split(":", 2)[2] for line in own.read_text().splitlines()}
    version = 2 if (root / "cgroup.controllers").exists() else 1
    groups = []
    for lane in range(lanes):
        folders = (
            _second(root, places.get("", "/"), f"{name}-{lane}") if version == 2 else _first(root, places, f"{name}-{lane}")
        )
        groups.append(LaneGroup(folders=folders, version=version))
    return groups


def _first(root: Path, places: dict[str, str], name: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for controllers, place in places.items():
        for controller in ("memory", "pids"):
            if controller in controllers.split(","):
                for parent in (root / controllers / place.lstrip("/"), root / controllers):
                    if _make(parent / name, "memory.limit_in_bytes" if controller == "memory" else "pids.max"):
                        found[controller] = parent / name
                        break
    return found


def _second(root: Path, place: str, name: str) -> dict[str, Path]:
    """In the nearest group above this process that hands both controllers down, or can be made to."""
    own = root / place.lstrip("/")
    for parent in (own, *own.parents):
        if not parent.is_relative_to(root) or not (parent / "cgroup.controllers").exists():
            continue
        if not {"memory", "pids"} <= set((parent / "cgroup.controllers").read_text().split()) or not os.access(parent, os.W_OK):
            continue
        if not {"memory", "pids"} <= set((parent / "cgroup.subtree_control").read_text().split()):
            try:
                (parent / "cgroup.subtree_control").write_text("+memory +pids")
            except OSError:
                continue  # processes live in it (version 2 forbids both), or it is not ours to change
        if _make(parent / name, "memory.max"):
            return {"memory": parent / name, "pids": parent / name}
    return {}


def _make(folder: Path, limit: str) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(folder / limit, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _limit_memory(folder: Path, version: int, value: int) -> None:
    """Swap counts as memory, where the kernel counts it at all."""
    names = ("memory.max", "memory.swap.max") if version == 2 else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    swap = folder / names[1]
    if version == 1 and swap.exists():
        swap.write_text("-1")  # version 1 refuses memory above memory and swap together, so that goes out of the way first
    (folder / names[0]).write_text(str(value))
    if swap.exists():
        swap.write_text("0" if version == 2 else str(value))
