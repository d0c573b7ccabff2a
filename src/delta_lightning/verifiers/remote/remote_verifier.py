"""A judge, or a sandbox service, that answers JSON to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from delta_lightning.errors import require
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.remote.exchange import NonsenseError
from delta_lightning.verifiers.remote.reply import at, judged, number, numbers, shown, wanted_reference
from delta_lightning.verifiers.remote.service_verifier import ServiceVerifier

_PARTS = ("prompt", "completion", "reference")
_OWN = {status.value: status for status in Status}


@dataclass(frozen=True, kw_only=True)
class RemoteVerifier(ServiceVerifier):
    """Asks an HTTP service: POST {"prompt", "completion", "reference"}, answer {"status", "reward", "reason"}.

    The answer needs a status, a reward, or both. A status is a word of `statuses` or one of ours (correct, incorrect,
    no_answer, timeout, error, unavailable). Without a status, a reward of at least `correct_at` is CORRECT and any other
    INCORRECT; without a reward, CORRECT earns 1 and the others 0. true and false count as 1 and 0. "components" and "measures",
    where present, are objects of numbers.

    UNAVAILABLE, never a reward, where the service is away (see `Service`); ERROR where it refuses the request (HTTP 4xx) or
    answers what cannot be used. The law "same input, same verdict" holds only as far as the service keeps it; pauses between
    attempts are random.

    Args:
        service: where it is, and how long it may take.
        fields: fields of the reference that are sent, and that the data must have.
        request: our name -> its name of what is sent: "prompt", "completion", "reference"; what is left out is not sent.
        constants: sent with every request, for example {"language": "python"}.
        status: where the status stands in the answer, as a dotted path. reward, reason: likewise.
        statuses: its words for a status -> ours.
        correct_at: least reward that is CORRECT where the answer has no status.
        least_reward: a smaller reward is nonsense. most_reward: a larger one is.
        probe: reference that is sent once at start, with an empty prompt and completion, to see whether the service works.
    """

    request: Mapping[str, str] = field(default_factory=lambda: {name: name for name in _PARTS})
    constants: Mapping[str, Any] = field(default_factory=dict)
    status: str = "status"
    reward: str = "reward"
    reason: str = "reason"
    statuses: Mapping[str, str] = field(default_factory=dict)
    correct_at: float = 1.0
    least_reward: float = 0.0
    most_reward: float = 1.0
    probe: Mapping[str, Any] = field(default_factory=lambda: {"answer": ""})

    def __post_init__(self) -> None:
        unknown = sorted(set(self.request) - set(_PARTS))
        require(not unknown and "completion" in self.request, "RemoteVerifier.request",
                wanted="names for completion, and for prompt and reference where they are sent", got=dict(self.request),
                remedy="Write our name first: {completion: answer_text}.")  # fmt: skip
        double = set(self.request.values()) & set(self.constants)
        require(not double, "RemoteVerifier.constants", wanted="other names than the request's", got=sorted(double),
                remedy="Rename one of them.")  # fmt: skip
        strange = sorted(set(self.statuses.values()) - set(_OWN))
        require(not strange, "RemoteVerifier.statuses", wanted=f"statuses out of {', '.join(_OWN)}", got=strange,
                remedy="Write the service's word first: {Success: correct}.")  # fmt: skip
        require(self.least_reward <= self.most_reward, "RemoteVerifier.least_reward", wanted=f"at most {self.most_reward:g}",
                got=self.least_reward, remedy="Swap the two bounds.")  # fmt: skip

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""

        def ask() -> Verdict:
            reference = wanted_reference(prompt, self.fields)
            return self._verdict(self.service.ask(self._question(prompt.text, completion.text, reference)))

        return judged(ask)

    def check(self) -> Sequence[str]:
        """Asks every address once. Raises `ConfigError` with the address and what came back."""
        lines = self.service.lines()
        for url, answer, seconds in self.service.ask_each(self._question("", "", dict(self.probe))):
            try:
                verdict = self._verdict(answer)
            except NonsenseError as error:
                raise self.service.refusal(url, str(error)) from error
            lines.append(f"remote judge at {url}: answered the probe in {seconds:.2f} s ({verdict.status.value})")
        return lines

    def _question(self, prompt: str, completion: str, reference: Mapping[str, Any]) -> dict[str, Any]:
        parts = {"prompt": prompt, "completion": completion, "reference": dict(reference)}
        return {**self.constants, **{theirs: parts[ours] for ours, theirs in self.request.items()}}

    def _verdict(self, answer: Any) -> Verdict:
        if not isinstance(answer, Mapping):
            raise NonsenseError(f"its answer is {shown(answer)}, no object")
        word, value, reason = (at(answer, path) for path in (self.status, self.reward, self.reason))
        if word is None and value is None:
            raise NonsenseError(f"its answer has neither {self.status!r} nor {self.reward!r}: {shown(answer)}")
        reward = None
        if value is not None:
            reward = number(value, f"its {self.reward!r}", least=self.least_reward, most=self.most_reward)
        status = self._status(word, reward)
        if status in (Status.ERROR, Status.UNAVAILABLE):
            return Verdict(status=status, reward=0.0, reason=f"the service says so: {shown(reason)}")
        return Verdict(
            status=status,
            reward=float(status is Status.CORRECT) if reward is None else reward,
            reason=reason if isinstance(reason, str) else "" if reason is None else shown(reason),
            components=numbers(answer.get("components"), "its 'components'"),
            measures=numbers(answer.get("measures"), "its 'measures'"),
        )

    def _status(self, word: Any, reward: float | None) -> Status:
        if word is None:
            assert reward is not None
            return Status.CORRECT if reward >= self.correct_at else Status.INCORRECT
        status = _OWN.get(self.statuses.get(word, word)) if isinstance(word, str) else None
        if status is None:
            raise NonsenseError(f"its {self.status!r} is {shown(word)}, which is no status")
        return status
