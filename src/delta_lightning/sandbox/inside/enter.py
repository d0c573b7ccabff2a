"""The outer sandbox without bubblewrap: namespaces by unshare(2) and a root of read-only bind mounts, then the zygote."""

from __future__ import annotations

import os
import socket
from typing import Any

from delta_lightning.sandbox.inside import kernel, zygote

_STAGES = ("/mnt", "/media", "/srv", "/opt", "/var/tmp", "/tmp")  # folders that every system has


def main(control: socket.socket, boot: dict[str, Any], descriptors: list[int]) -> None:
    """Build the outer sandbox and run the zygote as the first process of its pid namespace."""
    outside = boot["plan"]["outside"]
    uid, gid = os.getuid(), os.getgid()
    flags = kernel.NEWNS | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWPID
    kernel.unshare(flags | (kernel.NEWUSER if outside["user_namespace"] else 0))
    if outside["user_namespace"]:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _root(outside)
    process = os.fork()
    if process:
        control.close()
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(process, 0)
        os._exit(0)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags)
    kernel.unmount("/old")
    os.rmdir("/old")
    kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV)
    os.setsid()
    zygote.main(control, boot, descriptors)
    os._exit(0)


def _root(outside: dict[str, Any]) -> None:
    """A small tmpfs with read-only views of what the interpreter needs becomes the root; the old one stays at /old.

    It is put together in a folder that hides none of them; only this process and its children see what is mounted there.
    """
    stage = next(
        path for path in _STAGES if os.path.isdir(path) and not any(_holds(path, shown) for shown in outside["readable"])
    )
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=512,mode=755")
    for path in outside["readable"]:
        _show(path, stage)
        kernel.read_only(stage + path)
    for path in outside["devices"]:
        _show(path, stage)
    for link, target in outside["links"]:
        os.symlink(target, stage + link)
    for folder in ("/tmp", "/dev/shm", "/proc", "/old"):
        os.makedirs(stage + folder, exist_ok=True)
    kernel.pivot_root(stage, stage + "/old")
    os.chdir("/")


def _show(path: str, stage: str) -> None:
    target = stage + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w"):
            pass
    kernel.mount(path, target, None, kernel.MS_BIND | kernel.MS_REC)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder + "/")
