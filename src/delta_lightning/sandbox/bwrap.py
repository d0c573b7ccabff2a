"""What both bubblewrap rungs have in common: the view of the file system that the outer sandbox shows."""

from __future__ import annotations

from pathlib import PurePath

from delta_lightning.sandbox.interpreter import DEVICES, STREAMS, Interpreter, system_view


def outer(program: str, interpreter: Interpreter, capabilities: tuple[str, ...]) -> tuple[str, ...]:
    """Bubblewrap's command line but for the namespaces: read-only system, empty /tmp and /dev/shm, cleared environment.

    The zygote is the first process of its pid namespace (`--as-pid-1`): when it ends, the kernel ends everything in it. It ends
    by itself with the trainer's process (`inside/zygote.py`); `--die-with-parent` would tie it to one thread of it.
    """
    folders, links = system_view()
    arguments = [program, "--as-pid-1", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for capability in capabilities:
        arguments += ["--cap-add", capability]
    for path in folders:
        arguments += ["--ro-bind", path, path]
    for path, target in links:
        arguments += ["--symlink", target, path]
    for path in interpreter.folders:
        for parent in reversed(PurePath(path).parents):  # bubblewrap gives what it creates mode 0700: cells could not pass
            arguments += ["--perms", "0755", "--dir", str(parent)]
        arguments += ["--ro-bind", path, path]
    arguments += ["--proc", "/proc", "--dir", "/dev"]
    for device in DEVICES:
        arguments += ["--dev-bind", device, device]
    for path, target in STREAMS:
        arguments += ["--symlink", target, path]
    arguments += ["--dir", "/dev/shm", "--dir", "/tmp"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    return (*arguments, "--remount-ro", "/", "--chdir", "/tmp", "--")


ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets print and sort alike in every zygote: the same program gets the same verdict
}
