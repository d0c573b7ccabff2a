"""jsonargparse's messages, made short: the key, what is wrong with it, and the nearest valid names.

Its own messages list every type that a value was tried as and leave the choices out. The patterns below were taken from the
pinned version; a message that matches none is printed as it is, so a change there costs comfort, never information.
"""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEY = re.compile(r'Parser key "([^"]+)"')
CLASS = re.compile(r"(?:Problem with given class_path |Got value: Namespace\(class_path=)'([^']+)'")

PLAIN = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "list": "a list, [A, B]"}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a user may write.

    Args:
        options: every option of the subcommand, dotted, without dashes.
        roots: the class behind each top-level group, for example `{"model": PolicyModule}`, or the type of a lone setting.
    """

    options: Sequence[str]
    roots: Mapping[str, Any]

    def hint(self, keys: Sequence[str], classes: Sequence[str]) -> Any:
        """The type of the setting that `keys` lead to, through the given classes; None if that cannot be told."""
        first, _, rest = keys[0].partition(".")
        owner: Any = self.roots.get(first)
        lone = owner is not None and not inspect.isclass(owner)  # a setting of the subcommand's own, given as its type
        if owner is None or "." in rest or bool(rest) == lone:
            return None
        hint = owner if lone else _hints(owner).get(rest)
        for name, class_path in zip(keys[1:], classes, strict=False):
            below = {_short(_path(cls)): cls for cls in subclasses(hint)}.get(_short(class_path))
            hint = _hints(below).get(name) if below is not None else None
        return hint


def explain(message: str, vocabulary: Vocabulary) -> str:
    """One message, at most a few lines, for what jsonargparse says."""
    rules: tuple[Callable[[str, Vocabulary], str | None], ...] = (
        _unknown_command,
        _unknown_option,
        _required,
        _unknown_argument,
        _not_installed,
        _wrong_class,
        _linked,
        _no_group,
        _wrong_value,
    )
    for rule in rules:
        said = rule(message, vocabulary)
        if said is not None:
            return said
    return _tidy(message)


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean X?`, or nothing when no name is close."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=1, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def subclasses(hint: Any) -> list[type]:
    """Classes that a setting of type `hint` accepts: those below a class, in a union, in a list or made by a factory."""
    if inspect.isclass(hint) and hint.__module__ != "builtins":
        below = [cls for child in type.__subclasses__(hint) for cls in [child, *subclasses(child)]]
        shown = [cls for cls in below or [hint] if not _hidden(cls)]
        return list(dict.fromkeys(shown))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is not None and arguments and isinstance(arguments[0], list):
        arguments = arguments[1:]  # Callable[[...], result]
    return [cls for argument in arguments for cls in subclasses(argument)]


def _unknown_command(message: str, words: Vocabulary) -> str | None:
    match = re.search(r"argument subcommand: invalid choice: '([^']+)'", message)
    known = ("fit", "validate", "plan", "decontaminate", "export", "ablate", "check", "verify", "serve", "plugins")
    return match and f"unknown command {match.group(1)}.{nearest(match.group(1), known)} Known: {', '.join(known)}."


def _unknown_option(message: str, words: Vocabulary) -> str | None:
    shell = re.search(r"unrecognized arguments: (-\S+)", message)
    config = re.search(r"(?:does not accept option|Option) '([^']+)'(?: is not accepted$)?", message)
    if shell:
        name, prefix = shell.group(1).lstrip("-").partition("=")[0], "--"
    elif config and not KEY.search(message):
        name, prefix = config.group(1), ""
        if "does not accept option" in message and message.startswith("Group '"):
            name = re.sub(r"^Group '([^']+)'.*", r"\1", message, flags=re.DOTALL) + "." + name
    else:
        return None
    options = [prefix + option for option in words.options if not option.endswith(".help")]
    return f"unknown setting {prefix}{name}.{nearest(prefix + name, options) or ' See delta-lightning fit --help.'}"


def _required(message: str, words: Vocabulary) -> str | None:
    match = re.search(r"arguments are required: (.+)", message)
    if match is None:
        return None
    above, said = KEY.findall(message), []  # the settings that lead to the part that lacks something
    for key in (
        name.strip().removeprefix("fit.").removeprefix("validate.").removeprefix("ablate.")
        for name in match.group(1).split(",")
    ):
        known = _known(words.hint([*above, key], CLASS.findall(message)))
        said.append(f"{'.'.join([*dict.fromkeys(above), key])} is required and was not given.{known}")
    return "\n".join(said)


def _unknown_argument(message: str, words: Vocabulary) -> str | None:
    match = re.search(r"(?:Option|Key) '([^']+)' is not accepted", message)
    classes = [name for name in CLASS.findall(message) if "." in name]
    if match is None or not classes:
        return None
    name, owner = match.group(1), _short(classes[-1])
    known = _fields(classes[-1])
    return f"{_key(message)}: {owner} has no setting '{name}'.{nearest(name, known)} Known: {', '.join(known) or 'none'}."


def _not_installed(message: str, words: Vocabulary) -> str | None:
    """A callable, such as an optimiser, of a package that is not there."""
    match = re.search(r"callable class: No module named '([^']+)'\. Got value: (?:Namespace\(class_path=)?'?([\w.]+)", message)
    if match is None:
        return None
    module, name = match.groups()
    package = module.partition(".")[0]
    return f"{_key(message)}: cannot import {name}: there is no {module}. Install it (pip install {package}), or correct it."


def _wrong_class(message: str, words: Vocabulary) -> str | None:
    patterns = {
        r"Expected a dot import path string: (\S+)": "unknown class '{}'",
        r"Import path (\S+) does not correspond to a subclass of": "{} is of another kind",
        r"Expected an instantiatable class, but (\S+) is abstract": "{} is the abstract class of its kind",
        r"Importing '([^']+)' is not allowed": "{} is not a part",
        r"Problem with given class_path '([^']+)':\s+(?:No module named|[Mm]odule|cannot import|.*has no attribute)": (
            "cannot import {}"
        ),
    }
    for pattern, says in patterns.items():
        match = re.search(pattern, message)
        if match is not None:
            name, keys = match.group(1), KEY.findall(message)
            hint = words.hint(keys, CLASS.findall(message)) if keys else None
            numbers = [_plain(one.__name__) for one in typing.get_args(hint) if one in (int, float)]
            others = [_path(one) for one in typing.get_args(hint) if inspect.isclass(one) and one.__module__ != "builtins"]
            if numbers and all(path.startswith("torch.") for path in others):  # tensors, which no text can name
                return f"{_key(message)}: wanted {' or '.join(numbers)}, got '{name}'."
            close = nearest(_short(name), map(_short, map(_path, subclasses(hint))))
            return f"{_key(message)}: {says.format(name)}.{close}{_known(hint)}"
    return None


def _linked(message: str, words: Vocabulary) -> str | None:
    match = re.search(r'Linked "(?P<target>[^"]+)" must be given via "(?P<source>[^"]+)"', message)
    match = match or re.search(r"argument (?P<source>\S+) --> (?P<target>\S+):", message)
    return match and f"{match['target']} follows {match['source']}. Set {match['source']} instead."


def _no_group(message: str, words: Vocabulary) -> str | None:
    match = re.search(r"Unable to load config ['\"](.+?)['\"]", message)
    key = _key(message)
    return match and f"{key}: wanted a value for a setting below it, as in {key}.NAME=VALUE, got '{match.group(1)}'."


def _wrong_value(message: str, words: Vocabulary) -> str | None:
    types = re.findall(r"Expected a (?:<class ')?(?:typing\.)?(.+?)(?:'>)?(?:\. Got value: .*)?$", message, re.MULTILINE)
    got = re.search(r"(?:Got value|Given value): (.+)", message)
    types = [name for name in types if not name.startswith("path but")]
    if not types or got is None or not KEY.search(message):
        return None
    wanted = " or ".join(_plain(name) for name in dict.fromkeys(types) if name != "NoneType")
    hint = words.hint(KEY.findall(message), CLASS.findall(message))
    return f"{_key(message)}: wanted {wanted}, got '{got.group(1)}'.{_known(hint) if 'list' in types else ''}"


def _plain(name: str) -> str:
    literal = re.fullmatch(r"Literal\[(.*)\]", name)
    if literal:
        return "one of " + literal.group(1).replace("'", "")
    return PLAIN.get(name, name)


def _known(hint: Any) -> str:
    names = sorted({_short(_path(cls)) for cls in subclasses(hint)})
    return f" Known: {', '.join(names)}; a class of your own is named by its full path." if names else ""


def _hidden(owner: type) -> bool:
    return inspect.isabstract(owner) or "._" in _path(owner) or "<locals>" in owner.__qualname__


def _key(message: str) -> str:
    return ".".join(dict.fromkeys(KEY.findall(message))) or "config"


def _fields(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    owner = getattr(__import__(module, fromlist=[name]), name, None) if module else None
    return list(inspect.signature(owner).parameters) if inspect.isclass(owner) else []


def _hints(owner: Any) -> dict[str, Any]:
    """Types of a constructor's parameters; empty if they cannot be resolved outside a type checker."""
    try:
        return typing.get_type_hints(owner.__init__) if inspect.isclass(owner) else {}
    except NameError:
        return {}


def _tidy(message: str) -> str:
    """The message without the lines that say what it might also have been."""
    noise = re.compile(r"Expected a path but .* either not accessible or invalid|Subtypes: |Given value type: ")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip() and not noise.search(line)]
    return " ".join(lines)


def _short(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def _path(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"
