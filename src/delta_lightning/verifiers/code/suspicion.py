"""Programs that reach for the interpreter, the system or the comparison itself."""

from __future__ import annotations

import re

_SIGNS = re.compile(
    r"\b(?:sys\s*\.\s*(?:_getframe|settrace|setprofile|modules|excepthook)|_getframe|inspect\s*\.\s*(?:stack|currentframe)|f_back"
    r"|f_globals|f_locals|tb_frame|gi_frame|gc\s*\.\s*get_|ctypes|posix|_posixsubprocess|subprocess|multiprocessing|socket|mmap|cffi"
    r"|__(?:eq|ne|lt|le|gt|ge|hash|bool|class|instancecheck|subclasses|builtins|globals|code|closure|reduce|reduce_ex|del)__"
    r"|os\s*\.\s*(?:_exit|abort|kill|fork|exec\w*|spawn\w*|posix_spawn\w*|system|popen|setsid|environ|dup2?)|atexit|faulthandler"
    r"|builtins|importlib|__import__|unshare|ptrace|prctl|/proc/|/dev/shm|/etc/|AssertionError|unittest|pytest)"
)
_IMPORTS = re.compile(
    r"^[ \t]*(?:import|from)[ \t]+(?:gc|inspect|ctypes|signal|resource|pickle|copyreg|marshal)\b", re.MULTILINE
)


def suspicious(program: str) -> bool:
    """Whether the text names something that a solution hardly needs and a cheat does. A count for people, never a verdict."""
    return bool(_SIGNS.search(program) or _IMPORTS.search(program))
