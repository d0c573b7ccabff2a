"""One completion asked of one server: the request, and its answer read with care."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import RunError
from delta_lightning.samplers.rows import Row
from delta_lightning.samplers.servers.client import Call, Client, ServerError, excerpt
from delta_lightning.samplers.servers.rpc import TAKE_MASS, ask_worker
from delta_lightning.samplers.stopping import Bans, StopRules
from delta_lightning.types import SamplingParams

PATH = "/inference/v1/generate"
CUT = "delta_cut"  # key of the extra arguments that our logits processor reads there
NO_NUMBER = -9999.0  # what vLLM writes for log-probabilities that are not finite


class WrongVersionError(ServerError):
    """A server sampled from other weights than those that it was given last."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A sampled completion: tokens, log-probabilities of the distribution sampled from, log of the mass kept by cuts, nats."""

    tokens: Sequence[int]
    logprobs: Sequence[float]
    kept: Sequence[float]
    stopped: bool


class Question:
    """What one call of `generate` asks for each of its completions. Threads share it.

    Args:
        params, stops, bans: of the call. label: the version of weights that answers must carry.
    """

    def __init__(self, params: SamplingParams, stops: StopRules, bans: Bans, label: str) -> None:
        self._params, self._stops, self._label = params, stops, label
        self._cut: dict[str, Any] | None = None
        if params.cuts():
            self._cut = {
                "top_p": params.top_p, "top_k": params.top_k, "min_p": params.min_p, "never": bans.never,
                "sequences": [[prefix, last] for prefix, last in bans.sequences],
            }  # fmt: skip
        self._lock = threading.Lock()  # the text of every token is made at the first look for a stop string

    def ask(self, client: Client, row: Row, name: str, call: Call, seconds: float) -> Answer:
        """The completion of `row`, asked under `name`, at most `seconds` between two pieces of the answer.

        Raises:
            ServerError: no answer, or one that cannot be one. RunError: the weights give no finite log-probabilities.
        """
        if self._stops.strings:
            tokens, logprobs, stopped = self._streamed(client, row, name, call, seconds)
        else:
            answer = client.post(PATH, self.body(row, name), seconds, call)
            choice = _choice(client, answer)
            tokens, logprobs = _tokens(client, choice)
            stopped = self._ended(client, choice) == "stop"
            self._check_spans(client, choice)
        if not 1 <= len(tokens) <= row.limit:
            raise _nonsense(client, f"{len(tokens)} tokens where 1 to {row.limit} were asked for")
        kept = self._kept(client, name, len(tokens), call, seconds)
        return Answer(tokens=tokens, logprobs=logprobs, kept=kept, stopped=stopped)

    def body(self, row: Row, name: str) -> dict[str, Any]:
        """The request as vLLM reads it."""
        sampling: dict[str, Any] = {
            "max_tokens": row.limit,
            "temperature": self._params.temperature,
            "seed": row.key,
            "logprobs": 0,
            "stop_token_ids": sorted(self._stops.ids),
            "ignore_eos": True,  # the stop ids say all there is to say
            "detokenize": False,
        }
        if self._cut is not None:
            sampling["extra_args"] = {CUT: {"request": name, **self._cut}}
        return {
            "request_id": name, "token_ids": list(row.prompt.token_ids), "sampling_params": sampling,
            "stream": bool(self._stops.strings),
        }  # fmt: skip

    def _streamed(self, client: Client, row: Row, name: str, call: Call, seconds: float) -> tuple[list[int], list[float], bool]:
        """Token by token, until the server ends it or a stop string is complete."""
        tokens: list[int] = []
        logprobs: list[float] = []
        with closing(client.stream(PATH, self.body(row, name), seconds, call)) as events:
            for event in events:
                choice = _choice(client, event)
                new, values = _tokens(client, choice)
                for token, value in zip(new, values, strict=True):
                    tokens.append(token)
                    logprobs.append(value)
                    with self._lock:
                        ended = self._stops.ended(tokens)
                    if ended:  # closing the stream makes the server drop the rest; what it serves is asked, since no span came
                        self._check_served(client, call, seconds)
                        return tokens, logprobs, True
                if choice.get("finish_reason") is not None:
                    stopped = self._ended(client, choice) == "stop"
                    self._check_spans(client, choice)
                    return tokens, logprobs, stopped
        raise _nonsense(client, "a stream that ended without a finish_reason")

    def _ended(self, client: Client, choice: dict[str, Any]) -> str:
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise _nonsense(client, f"a completion that ended with {reason!r}")
        return str(reason)

    def _check_spans(self, client: Client, choice: dict[str, Any]) -> None:
        spans = choice.get("weight_versions")
        if not isinstance(spans, list):
            raise _nonsense(client, "a completion without weight_versions")
        labels = {str(span.get("version")) for span in spans if isinstance(span, dict)}
        if labels != {self._label}:
            raise _wrong(client, ", ".join(sorted(labels)) or "no version", self._label)

    def _check_served(self, client: Client, call: Call, seconds: float) -> None:
        served = served_label(client, seconds, call)
        if served != self._label:
            raise _wrong(client, served, self._label)

    def _kept(self, client: Client, name: str, length: int, call: Call, seconds: float) -> list[float]:
        """Engines answer between two steps, which may be long: their answer is a part of the completion to wait for."""
        if self._cut is None:
            return [0.0] * length
        found = ask_worker(client, TAKE_MASS, [[name, length]], seconds=seconds, call=call)
        kept = found.get(name) if isinstance(found, dict) else None
        if not isinstance(kept, list) or len(kept) != length or not all(isinstance(value, float | int) for value in kept):
            raise ServerError(client.url, TAKE_MASS, f"no kept mass of {length} tokens: {excerpt(str(found))}")
        return [float(value) for value in kept]


def served_label(client: Client, seconds: float | None = None, call: Call | None = None) -> str:
    """The label of the weights that a server says it serves. Raises `ServerError`."""
    answer = client.get("/weight_info", seconds, call)
    if not isinstance(answer, dict) or "weight_version" not in answer:
        raise ServerError(client.url, "GET /weight_info", f"no weight_version in its answer: {excerpt(str(answer))}")
    return str(answer["weight_version"])


def score(client: Client, token_ids: Sequence[int], name: str, seconds: float) -> list[float]:
    """Log-probabilities at temperature 1 of tokens 1.. of a sequence, nats, by the server. Raises `ServerError`."""
    sampling = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False, "seed": 0, "temperature": 1.0}
    body = {"request_id": name, "token_ids": list(token_ids), "sampling_params": sampling}
    answer = client.post(PATH, body, seconds)
    entries = answer.get("prompt_logprobs") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or len(entries) != len(token_ids):
        raise _nonsense(client, f"no prompt_logprobs of {len(token_ids)} tokens: {excerpt(str(answer))}")
    try:
        return [float(entry[str(token)]["logprob"]) for token, entry in zip(token_ids[1:], entries[1:], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise _nonsense(client, f"prompt_logprobs without the prompt's tokens: {excerpt(str(entries))}") from error


def _choice(client: Client, answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise _nonsense(client, f"an answer without one choice: {excerpt(str(answer))}")
    return choices[0]


def _tokens(client: Client, choice: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Tokens and log-probabilities of a choice, which must be as many and of the same tokens."""
    tokens, logprobs = choice.get("token_ids") or [], choice.get("logprobs")
    content = (logprobs.get("content") if isinstance(logprobs, dict) else None) or []
    try:
        named = [int(entry["token_id"]) for entry in content]
        values = [float(entry["logprob"]) for entry in content]
    except (KeyError, TypeError, ValueError) as error:
        raise _nonsense(client, f"log-probabilities that are none: {excerpt(str(content))}") from error
    if named != tokens:
        raise _nonsense(client, f"log-probabilities of {len(named)} tokens beside {len(tokens)} tokens, or of others")
    if any(value <= NO_NUMBER or not math.isfinite(value) for value in values):
        raise RunError(f"{client.url}: the model's logits are not finite in a completion; its weights may have diverged")
    return named, values


def _nonsense(client: Client, what: str) -> ServerError:
    return ServerError(client.url, f"POST {PATH}", what)


def _wrong(client: Client, served: str, wanted: str) -> WrongVersionError:
    return WrongVersionError(
        client.url, f"POST {PATH}", f"stale: it samples from weights {served} where {wanted} was sent last"
    )
