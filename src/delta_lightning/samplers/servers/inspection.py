"""What a server is, and whether it can serve a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.servers.client import Client, ServerError, excerpt
from delta_lightning.samplers.servers.question import served_label
from delta_lightning.samplers.servers.rpc import DESCRIBE, ask_worker
from delta_lightning.samplers.servers.server import counted
from delta_lightning.samplers.vllm_version import TESTED

MODE = "processed_logprobs"
START = "Start it with `delta-lightning serve`."
SHAPE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip
TEXTS = 64  # tokens of the comparison of tokenizers


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a server says of itself.

    Attributes:
        version: of vLLM. dtype: of its weights. vocabulary: rows of the head. context: longest sequence, tokens.
        max_sequences: completions decoded at a time. shape: fields of its config.
    """

    version: str
    dtype: str
    vocabulary: int
    context: int
    max_sequences: int
    shape: Mapping[str, Any] = field(default_factory=dict)


def inspect(client: Client, backend: str) -> Facts:
    """What the server is. Raises `ConfigError` if it is away, no vLLM, or one that cannot serve a run.

    Args:
        backend: the way in which it must receive weights.
    """
    version = _version(client)
    try:
        served_label(client)
    except ServerError as error:
        raise _refusal(client, "a vLLM server in development mode (VLLM_SERVER_DEV_MODE=1)", error.reason, START) from error
    try:
        said = ask_worker(client, DESCRIBE)
        counted(client, client.timeout)
    except ServerError as error:
        raise _refusal(client, "a vLLM server with this package's plug-in", error.reason, START) from error
    try:
        facts = Facts(
            version=version, dtype=str(said["dtype"]), vocabulary=int(said["vocabulary"]), context=int(said["context"]),
            max_sequences=int(said["max_sequences"]), shape=dict(said["config"]),
        )  # fmt: skip
        mode, asynchronous, cuts, receives = (said[name] for name in ("logprobs_mode", "async_scheduling", "cuts", "backend"))
    except (KeyError, TypeError, ValueError) as error:
        got = f"one that says {excerpt(str(said))}"
        raise _refusal(client, "a vLLM server with this package's plug-in, of the same version", got, START) from error
    if mode != MODE:
        raise _refusal(client, f"a server with --logprobs-mode={MODE}", str(mode), START)
    if asynchronous or not cuts:
        got = "asynchronous scheduling" if asynchronous else "a server without it"
        raise _refusal(client, "a server with this package's logits processor and --no-async-scheduling", got, START)
    if receives != backend:
        raise _refusal(client, f"a server that receives weights by {backend}", str(receives),
                       "Start it with the run's transfer, or change model.sampler.transfer.")  # fmt: skip
    return facts


def compare(client: Client, facts: Facts, model: Any, tokenizer: Any) -> None:
    """Refuse a server of another model. Raises `ConfigError`; another tokenizer is seen where the server has one."""
    remedy = "Start the server with the model that is trained."
    vocabulary = int(model.lm_head.weight.shape[0])
    if facts.vocabulary != vocabulary:
        raise _refusal(client, f"the model that is trained, with a vocabulary of {vocabulary}", str(facts.vocabulary), remedy)
    for name in SHAPE:
        ours, theirs = getattr(model.config, name, None), facts.shape.get(name)
        if theirs is not None and ours is not None and theirs != ours:
            raise _refusal(client, f"the model that is trained, with {name} {ours}", str(theirs), remedy)
    ids = sorted({index * (vocabulary - 1) // TEXTS for index in range(TEXTS + 1)})
    theirs = _read(client, ids)
    ours = tokenizer.decode(ids, skip_special_tokens=False)
    if theirs is not None and theirs != ours:
        raise _refusal(client, f"the tokenizer of the run, which reads tokens {ids[:6]} ... as {ours[:60]!r}",
                       f"another one, which reads {theirs[:60]!r}", remedy)  # fmt: skip


def _version(client: Client) -> str:
    try:
        answer = client.get("/version")
    except ServerError as error:
        if error.status is None and "JSON" not in error.reason and "HTTP" not in error.reason:
            raise _refusal(client, "a running vLLM server", error.reason, f"{START} Or mend the address.") from error
        raise _refusal(client, "a vLLM server", f"something else, which answered {error.reason}", START) from error
    version = answer.get("version") if isinstance(answer, dict) else None
    if not isinstance(version, str):
        raise _refusal(client, "a vLLM server", f"something else, which answered {excerpt(str(answer))!r}", START)
    if version.split("+")[0].split(".")[:2] != TESTED.split("."):
        raise _refusal(client, f"vLLM {TESTED}.*, the tested versions", f"vLLM {version}", f"Serve with vLLM {TESTED}.")
    return version


def _read(client: Client, ids: Sequence[int]) -> str | None:
    """The server's reading of tokens; None where it has no tokenizer, which is no fault: it is given tokens."""
    try:
        answer = client.post("/detokenize", {"tokens": list(ids)})
    except ServerError as error:
        if error.status is None:
            raise _refusal(client, "a running vLLM server", error.reason, START) from error
        return None
    return str(answer["prompt"]) if isinstance(answer, dict) and "prompt" in answer else None


def _refusal(client: Client, wanted: str, got: str, remedy: str) -> ConfigError:
    return ConfigError(f"vLLM server {client.url}", wanted=wanted, got=got, remedy=remedy)
