"""The order of the rungs, and which of them this machine may enter."""

from __future__ import annotations

from collections.abc import Sequence

from delta_lightning.errors import require
from delta_lightning.sandbox.bwrap_root import BwrapRoot
from delta_lightning.sandbox.bwrap_user import BwrapUser
from delta_lightning.sandbox.landlock import Landlock
from delta_lightning.sandbox.rung import Rung
from delta_lightning.sandbox.unsafe import Unsafe
from delta_lightning.sandbox.unshare import Unshare

LADDER: tuple[type[Rung], ...] = (BwrapRoot, BwrapUser, Unshare, Landlock, Unsafe)


def wanted(rung: str, *, allow_unsafe: bool) -> Sequence[type[Rung]]:
    """The rungs to try, best first.

    Args:
        rung: a rung's name, or `auto` for all; `unsafe` only with `allow_unsafe`.
        allow_unsafe: whether the user accepts a rung without any isolation.

    Raises:
        ConfigError: a name that is no rung's, or `unsafe` without `allow_unsafe`.
    """
    names = [kind.name for kind in LADDER]
    require(
        rung == "auto" or rung in names,
        "sandbox rung",
        wanted=f"auto or one of {', '.join(names)}",
        got=rung,
        remedy="Write one of them.",
    )
    require(
        rung != Unsafe.name or allow_unsafe,
        "sandbox rung",
        wanted="a rung that isolates, or allow_unsafe: true",
        got=rung,
        remedy="Set allow_unsafe: true only where the programs are your own.",
    )
    if rung != "auto":
        return [kind for kind in LADDER if kind.name == rung]
    return [kind for kind in LADDER if kind is not Unsafe or allow_unsafe]
