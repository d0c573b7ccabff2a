"""A sampler session whose engines are vLLM servers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.models.weights import weight_shapes, weights_of
from delta_lightning.samplers.received import Received, tied_embedding
from delta_lightning.samplers.rows import Row, groups
from delta_lightning.samplers.servers.client import Client, ServerError, excerpt
from delta_lightning.samplers.servers.fleet import Fleet
from delta_lightning.samplers.servers.inspection import Facts, compare, inspect
from delta_lightning.samplers.servers.question import Question, score, served_label
from delta_lightning.samplers.servers.rpc import FORGET_MASS, ask_workers
from delta_lightning.samplers.servers.server import Handle, Server
from delta_lightning.samplers.servers.starting import started
from delta_lightning.samplers.servers.together import first_does
from delta_lightning.samplers.servers.transfers import Target, TransferSession
from delta_lightning.samplers.stopping import Bans, StopRules, stop_token_ids
from delta_lightning.samplers.vllm import refuse_cool
from delta_lightning.types import Completion, Prompt, SamplingParams, SyncReceipt

if TYPE_CHECKING:
    from delta_lightning.samplers.vllm_server import VLLMServerSampler

AT_ONCE = 8  # probe sequences asked of a server at a time
DRAIN_SECONDS = 30.0  # in which a server must have dropped requests that were cut off


@dataclass(frozen=True)
class _Opened:
    """What rank 0 found, for all ranks: the run's name, and each server's address with what it is."""

    run: str
    servers: tuple[tuple[str, Facts], ...]


@dataclass(frozen=True)
class _Updated:
    """What became of an update, for all ranks: the receipt, and the servers that are set aside with the reason."""

    receipt: SyncReceipt
    lost: Mapping[str, str]


class ServerSession(SamplerSession):
    """See `VLLMServerSampler`. Rank 0 starts, updates and probes servers; every rank samples from all of them."""

    def __init__(self, options: VLLMServerSampler, context: SamplerContext) -> None:
        model = context.model
        self._options, self._context, self._version = options, context, 0
        self._ends = stop_token_ids(model, context.tokenizer)
        self._vocabulary = int(model.lm_head.weight.shape[0])
        self._names = frozenset(weight_shapes(model))
        self._tied = tied_embedding(model)
        self._stops: tuple[SamplingParams, StopRules] | None = None
        self._handles: list[Handle] = []
        self._transfer: TransferSession | None = None  # rank 0's
        self._closed, self._sampling = False, False
        with ExitStack() as undo:  # what was started does not outlive a start that fails
            undo.callback(self.close)
            opened = first_does(context, self._open)
            self._run, handles = opened.run, {handle.url.rstrip("/"): handle for handle in self._handles}
            servers = [
                Server(options.client(url), slots=-(-facts.max_sequences // context.world_size), patience=options.patience(),
                       handle=handles.get(url))
                for url, facts in opened.servers
            ]  # fmt: skip
            self._room = min(facts.context for _, facts in opened.servers)
            self._fleet = Fleet(servers, prefix=f"{self._run}-{context.rank}", first=context.rank, say=context.say)
            self.update_weights(0, weights_of(model))
            undo.pop_all()

    # Sampling --------------------------------------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Prompt], *, num_completions: int, params: SamplingParams, seed: int
    ) -> Generator[Completion, None, None]:
        """Completions as they finish; closing the generator aborts the rest on the servers.

        Raises `ConfigError` at once for prompts and options that cannot be sampled, and `RunError` when no server is left.
        """
        self._idle("sampled")
        refuse_cool(params)
        waiting = groups(prompts, num_completions=num_completions, params=params, seed=seed, context=self._room,
                         vocabulary=self._vocabulary)  # fmt: skip
        bans = Bans(params, tokenizer=self._context.tokenizer, vocabulary=self._vocabulary)
        question = Question(params, self._stop_rules(params), bans, self._label(self._version))
        return self._generate([row for entry in waiting for row in entry.rows], question)

    def _generate(self, rows: list[Row], question: Question) -> Generator[Completion, None, None]:
        done = 0

        def tick() -> None:
            if self._context.tick is not None:
                self._context.tick(done, len(rows))

        self._sampling = True
        try:
            with closing(self._fleet.answers(rows, question, tick)) as answers:
                for row, answer in answers:
                    row.tokens.extend(answer.tokens)
                    row.logprobs.extend(answer.logprobs)
                    row.raw_logprobs.extend(value + kept for value, kept in zip(answer.logprobs, answer.kept, strict=True))
                    done += 1
                    yield row.completion(self._context.tokenizer, stopped=answer.stopped, version=self._version)
                    tick()
        finally:
            self._sampling = False

    def _stop_rules(self, params: SamplingParams) -> StopRules:
        """Kept between calls: stop strings need the text of every token."""
        if self._stops is None or self._stops[0] != params:
            rules = StopRules(params, ends=self._ends, tokenizer=self._context.tokenizer, vocabulary=self._vocabulary)
            self._stops = (params, rules)
        return self._stops[1]

    # The probe -------------------------------------------------------------------------------------------------------

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities at temperature 1 of tokens 1.. of each sequence, by the first server in use. Collective."""
        return next(iter(self.logprobs_by_engine(token_ids).values()))

    def logprobs_by_engine(self, token_ids: Sequence[Sequence[int]]) -> dict[str, list[Tensor]]:
        """The same, by every server. Collective. Raises `ConfigError` for a sequence that a server has no room for."""
        self._idle("scored")
        longest = max((len(ids) for ids in token_ids), default=0)
        require(longest < self._room, "model.sampler.context", wanted=f"room for the {longest} tokens of a probe and one more",
                got=self._room, remedy="Raise it, also of servers that run, or lower model.weight_check.tokens.")  # fmt: skip
        values, lost = first_does(self._context, lambda: self._scores(token_ids))
        self._set_aside(lost)
        return {url: [torch.tensor(one) for one in scores] for url, scores in values.items()}

    def _scores(self, token_ids: Sequence[Sequence[int]]) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
        found: dict[str, list[list[float]]] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vllm-probe") as threads:
            for server in self._fleet.up():
                seconds = self._options.update_seconds
                asked = [threads.submit(score, server.client, ids, self._fleet.name(), seconds) for ids in token_ids]
                try:
                    found[server.url] = [one.result() for one in asked]
                except ServerError as error:
                    self._fleet.lose(server, server.why(error) or error.reason)
        self._fleet.up()
        return found, self._lost()

    # Weights ---------------------------------------------------------------------------------------------------------

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        """Send the weights to every server that answers, and empty their caches. Collective. Raises `RunError`.

        A server that was lost and answers again is taken in; one that fails is set aside, and the others go on.
        """
        self._idle("updated")
        self._context.share(None)  # until every rank is here: what one still samples would be dropped
        received = Received(weights)
        if self._context.rank != 0:  # rank 0 reads them on their way; it may be a collective
            received.exhaust()
        updated = first_does(self._context, lambda: self._update(version, received))
        for server in self._fleet.servers:
            if server.lost is not None and server.url not in updated.lost:
                self._fleet.regain(server)
        self._set_aside(updated.lost)
        self._version = version
        return updated.receipt

    def _update(self, version: int, weights: Received) -> _Updated:
        start, label = time.perf_counter(), self._label(version)
        try:
            self._take_back()
            for server in self._fleet.up():
                self._attempt(server, _drop_requests)
            up = self._fleet.up()
            assert self._transfer is not None
            delivered = self._transfer.send(version, label, weights, [server.client for server in up])
        finally:
            weights.exhaust()
        for server, failure in zip(up, delivered.failures, strict=True):
            if failure is not None:
                self._fleet.lose(server, f"it did not take the weights of version {version}: {failure.reason}")
        weights.refuse_missing(self._names, version)
        for server in self._fleet.up():
            self._attempt(server, lambda client: _confirm(client, label))
        self._fleet.up()
        receipt = SyncReceipt(version=version, num_tensors=len(weights.names), num_bytes=weights.num_bytes,
                              seconds=time.perf_counter() - start)  # fmt: skip
        return _Updated(receipt, self._lost())

    # Servers ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the servers that were started here; others keep running, with the last weights."""
        with ExitStack() as stack:  # each of them, also where one fails
            for handle in self._handles:
                stack.callback(handle.stop)
            if self._transfer is not None:
                stack.callback(self._transfer.close)
            self._handles, self._transfer, self._closed = [], None, True

    def _open(self) -> _Opened:
        options, context = self._options, self._context
        urls = [url.rstrip("/") for url in options.servers]
        if options.start:
            self._handles = started(options, context)
            urls = [handle.url.rstrip("/") for handle in self._handles]
        found = []
        for url in urls:
            client = options.client(url)
            facts = inspect(client, options.transfer.backend())
            compare(client, facts, context.model, context.tokenizer)
            found.append((url, facts))
        dtypes = {facts.dtype for _, facts in found}
        if len(dtypes) > 1:
            raise ConfigError("VLLMServerSampler.servers", wanted="servers of one dtype", got=", ".join(sorted(dtypes)),
                              remedy="Start them with the same --dtype.")  # fmt: skip
        target = Target(dtype=getattr(torch, dtypes.pop()), tied=self._tied, silence=options.update_seconds,
                        shapes=weight_shapes(context.model))  # fmt: skip
        self._transfer = options.transfer.open(target)
        return _Opened(secrets.token_hex(4), tuple(found))

    def _take_back(self) -> None:
        """Take in servers that were set aside and can sample again, not only answer questions about their health."""
        for server in [one for one in self._fleet.servers if one.lost is not None]:
            if server.ended() is not None:
                continue
            client = server.client
            try:
                facts = inspect(client, self._options.transfer.backend())
                compare(client, facts, self._context.model, self._context.tokenizer)
                score(client, [0, 0], self._fleet.name(), self._options.answer_seconds)
            except (ServerError, ConfigError) as error:
                server.lost = str(error)  # of several reasons the last is the one to mend
                continue
            self._fleet.regain(server)

    def _attempt(self, server: Server, step: Callable[[Client], None]) -> None:
        """A step of the update on one server, which is set aside if it fails."""
        try:
            step(server.client)
        except ServerError as error:
            self._fleet.lose(server, server.why(error) or f"{error.asked}: {error.reason}")

    def _set_aside(self, lost: Mapping[str, str]) -> None:
        for server in self._fleet.servers:
            if server.url in lost:
                self._fleet.lose(server, lost[server.url])

    def _lost(self) -> dict[str, str]:
        return {server.url: server.lost for server in self._fleet.servers if server.lost is not None}

    def _label(self, version: int) -> str:
        """What servers call the weights: two runs that share a server by mistake have different labels."""
        return f"{self._run}/{version}"

    def _idle(self, purpose: str) -> None:
        if self._closed:
            raise RunError("the connections to the vLLM servers are closed")
        if self._sampling:
            raise RunError(f"vLLM cannot be {purpose} while completions are being sampled")


def _drop_requests(client: Client) -> None:
    """What was cut off may still be running there."""
    client.post("/abort_requests", {})
    ask_workers(client, FORGET_MASS, [])  # all of them


def _confirm(client: Client, label: str) -> None:
    """The server must name the weights that it was given, and forget what it computed with others."""
    served = served_label(client)
    if served != label:
        raise ServerError(client.url, "GET /weight_info", f"stale: it serves weights {served} after it was sent {label}")
    until = time.monotonic() + DRAIN_SECONDS
    while not _emptied(client):
        if time.monotonic() > until:
            raise ServerError(client.url, "POST /reset_prefix_cache", "it kept its cache: requests are still running there")
        time.sleep(0.1)


def _emptied(client: Client) -> bool:
    answer = client.post("/reset_prefix_cache", {})
    if not isinstance(answer, dict) or "success" not in answer:
        raise ServerError(client.url, "POST /reset_prefix_cache", f"no success in its answer: {excerpt(str(answer))}")
    return bool(answer["success"])
