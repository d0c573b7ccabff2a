"""Where a remote judge is, how long it may take, and how often it is asked again."""

from __future__ import annotations

import json
import os
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from delta_lightning.errors import ConfigError, require
from delta_lightning.verifiers.remote.breaker import Breaker
from delta_lightning.verifiers.remote.exchange import AwayError, NonsenseError, Patience, excerpt, post

_HIDDEN = "[key]"
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Service:
    """The addresses of an HTTP judge, and what is tried until it counts as away.

    A refused or closed connection, silence, HTTP 408, 425, 429 and 5xx are tried again, at the next address in turn, after a
    pause that doubles and is drawn at random from the upper half of its length. Retry-After is honoured; where it asks for more
    than `longest_pause_seconds` the address is left alone for `breaker_seconds`. Every address has a circuit breaker in each
    worker process. Redirects are not followed, proxies not used, compressed answers refused; certificates are verified.

    Args:
        urls: complete addresses, http:// or https://; several are asked in turn.
        key_variable: name of the environment variable that holds the API key, sent as a bearer token; empty: none. The key
            itself never stands in a config, a log or a reason.
        certificate_file: PEM file of the authority that signed the service's certificate; empty: the system's authorities.
        connect_seconds: until connected, name resolution and TLS included.
        read_seconds: longest silence while an answer is awaited; above the time that the judge thinks.
        total_seconds: one verdict, with all attempts and pauses.
        attempts: most attempts for one verdict.
        pause_seconds: before the second attempt. longest_pause_seconds: bound of every pause.
        breaker_failures: failed attempts in a row after which an address is not asked for a while.
        breaker_seconds: how long; then one attempt decides.
        max_answer_kib: longer answers are refused unread.
    """

    urls: Sequence[str]
    key_variable: str = ""
    certificate_file: str = ""
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    total_seconds: float = 60.0
    attempts: int = 4
    pause_seconds: float = 0.5
    longest_pause_seconds: float = 10.0
    breaker_failures: int = 8
    breaker_seconds: float = 30.0
    max_answer_kib: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "urls", (self.urls,) if isinstance(self.urls, str) else tuple(self.urls))
        require(len(self.urls) > 0, "service.urls", wanted="at least one address", got=self.urls, remedy="Name the service.")
        for url in self.urls:
            _check_url(url)
        for name in ("connect_seconds", "read_seconds", "total_seconds"):
            require(getattr(self, name) > 0, f"service.{name}", wanted="more than 0 seconds", got=getattr(self, name),
                    remedy="Leave it out for the default.")  # fmt: skip
        for name in ("pause_seconds", "longest_pause_seconds", "breaker_seconds"):
            require(getattr(self, name) >= 0, f"service.{name}", wanted="at least 0 seconds", got=getattr(self, name),
                    remedy="Leave it out for the default.")  # fmt: skip
        for name in ("attempts", "breaker_failures", "max_answer_kib"):
            require(getattr(self, name) >= 1, f"service.{name}", wanted="at least 1", got=getattr(self, name),
                    remedy="Leave it out for the default.")  # fmt: skip

    def limit_seconds(self) -> float:
        """Most seconds that one verdict takes."""
        return self.total_seconds

    def open(self) -> None:
        """Read the key and the certificates, once in a process. Raises `ConfigError`."""
        _client(self)

    def ask(self, question: dict[str, Any]) -> Any:
        """The JSON that the service answers. Raises `AwayError` or `NonsenseError`."""
        return _client(self).ask(question)

    def ask_each(self, question: dict[str, Any]) -> list[tuple[str, Any, float]]:
        """Asks every address once, past its breaker: (address, answer, seconds). Raises `ConfigError` if one fails."""
        client = _Client(self)
        found = []
        for url in self.urls:
            started = time.monotonic()
            try:
                answer = client.attempt(url, question, deadline=started + self.total_seconds)
            except (AwayError, NonsenseError) as error:
                raise self.refusal(url, str(error)) from error
            found.append((url, answer, time.monotonic() - started))
        return found

    def refusal(self, url: str, came_back: str) -> ConfigError:
        """The error for an address whose answer cannot be used."""
        return ConfigError(
            f"remote judge at {url}", wanted="a usable answer", got=came_back,
            remedy="Start the service, or mend its address, its key variable or the field map.",
        )  # fmt: skip

    def lines(self) -> list[str]:
        """What people should know of these settings."""
        bare = [url for url in self.urls if url.startswith("http://") and urlsplit(url).hostname not in _LOCAL]
        if not bare:
            return []
        return [f"remote judge: answers{' and the key' if self.key_variable else ''} travel unencrypted to {', '.join(bare)}"]

    def key(self) -> str:
        """The API key, or nothing. Raises `ConfigError` where the variable is not set."""
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isprintable() or not key.isascii():
            raise ConfigError(
                "service.key_variable", wanted=f"an API key in the environment variable {self.key_variable}",
                got="nothing" if not key else "characters that no header can hold", remedy="Export it before the run.",
            )  # fmt: skip
        return key

    def tls(self) -> ssl.SSLContext | None:
        """What verifies certificates; None without https. Raises `ConfigError` for a file that cannot be read."""
        if not any(url.startswith("https://") for url in self.urls):
            return None
        try:
            return ssl.create_default_context(
                cafile=str(Path(self.certificate_file).expanduser()) if self.certificate_file else None
            )
        except OSError as error:
            raise ConfigError(
                "service.certificate_file",
                wanted="a PEM file",
                got=f"{self.certificate_file}: {error}",
                remedy="Check the path.",
            ) from error


class _Client:
    """State of one process: whose turn it is, the breakers, the TLS context and the key."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._tls, self._key = service.tls(), service.key()
        self._last = ""  # what went wrong last
        self._turn = os.getpid()  # so that worker processes do not all begin with the first address
        self._random = random.Random()  # pauses are meant to differ between processes
        self._breakers = {
            url: Breaker(failures=service.breaker_failures, cooldown=service.breaker_seconds) for url in service.urls
        }

    def ask(self, question: dict[str, Any]) -> Any:
        started = time.monotonic()
        deadline = started + self.service.total_seconds
        tried = 0
        while tried < self.service.attempts:
            url = self._next()
            if url is None:
                wait = min(breaker.remaining() for breaker in self._breakers.values())
                raise AwayError(f"{self._last} (not asked for another {wait:.0f} s)")
            tried += 1
            try:
                answer = self.attempt(url, question, deadline=deadline)
            except AwayError as error:
                self._breakers[url].failed()
                if error.pause is not None and error.pause > self.service.longest_pause_seconds:
                    self._breakers[url].open()
                self._last = f"{url}: {error}"
                if tried == self.service.attempts or not self._pause(tried, error.pause, deadline):
                    break
            except NonsenseError as error:
                self._breakers[url].answered()
                raise NonsenseError(f"{url}: {error}") from error
            else:
                self._breakers[url].answered()
                return answer
        raise AwayError(f"{self._last} ({tried} attempt{'s' * (tried > 1)}, {time.monotonic() - started:.1f} s)")

    def attempt(self, url: str, question: dict[str, Any], *, deadline: float) -> Any:
        """One question, one answer. Raises `AwayError` or `NonsenseError`, the key cut out of what they say."""
        service = self.service
        patience = Patience(connect=service.connect_seconds, read=service.read_seconds, deadline=deadline)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        body = json.dumps(question, ensure_ascii=True).encode("ascii")
        try:
            raw = post(url, body, headers, patience=patience, most_bytes=service.max_answer_kib * 1024, tls=self._tls)
            return _parsed(raw)
        except AwayError as error:
            raise AwayError(self._without_key(str(error)), error.pause) from error.__cause__
        except NonsenseError as error:
            raise NonsenseError(self._without_key(str(error))) from error.__cause__

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, _HIDDEN) if self._key else text

    def _next(self) -> str | None:
        """The next address in turn that may be asked."""
        for _ in self.service.urls:
            url = self.service.urls[self._turn % len(self.service.urls)]
            self._turn += 1
            if self._breakers[url].allows():
                return url
        return None

    def _pause(self, tried: int, asked_for: float | None, deadline: float) -> bool:
        """Wait before the next attempt; False if there is no time for it."""
        service = self.service
        if tried < len(service.urls) or (asked_for or 0.0) > service.longest_pause_seconds:
            return True  # another address is asked at once, if there is one
        doubled = min(service.pause_seconds * 2 ** min(tried - 1, 30), service.longest_pause_seconds)
        pause = doubled * self._random.uniform(0.5, 1.0)
        if asked_for is not None:
            pause = max(pause, asked_for)
        if time.monotonic() + pause >= deadline:
            return False
        time.sleep(pause)
        return True


def _parsed(raw: bytes) -> Any:
    """JSON, strictly. Raises `NonsenseError`."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NonsenseError(f"no JSON in its answer ({type(error).__name__}): {excerpt(raw)!r}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@lru_cache(maxsize=64)
def _client(service: Service) -> _Client:
    return _Client(service)


def _check_url(url: str) -> None:
    """Raises `ConfigError` for an address that cannot be asked, or that holds a secret."""
    what, remedy = "service.urls", "Write it as https://host:port/path."
    try:
        parts: SplitResult = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and " " not in url
        usable = usable and url.isprintable() and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ConfigError(what, wanted="http:// or https:// addresses", got=repr(url), remedy=remedy) from None
    require(usable, what, wanted="http:// or https:// addresses", got=url, remedy=remedy)
    require("@" not in parts.netloc, what, wanted="addresses without a name or password", got=f"{parts.scheme}://...@{parts.hostname}",
            remedy="Put the key into an environment variable and name it in service.key_variable.")  # fmt: skip
