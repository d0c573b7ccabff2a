"""Sampling a rollout step ahead: while one step trains, a thread samples and verifies the next (`model.one_step_off`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import RolloutCorrection, Sampler
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.refill import PromptStream, Ready, share
from delta_lightning.trainer.rollout_state import Numbered, packed, unpacked, with_prompts
from delta_lightning.trainer.rollouts import RolloutTools, collect
from delta_lightning.trainer.step import Plan, rollout_seed
from delta_lightning.trainer.watchdog import Watchdog, raise_in
from delta_lightning.types import Prompt, RolloutBatch

LOOK = 0.2  # seconds between two looks at the thread
PATIENCE = 5.0  # seconds that a thread may take to end by itself, and once more after it was interrupted


class Ahead:
    """Rollouts of later steps than the one that trains, sampled in a thread or restored from a checkpoint.

    A thread calls the sampler's session and the judge and nothing else: no model, no collective, no metric; on the terminal it
    only lets the sampler say a line that stays, such as of a lost server. The main thread uses neither of them before `wait`
    has returned. What a thread raises is raised again by `take` and `settle`.

    Args:
        enabled: False samples nothing ahead, and leaves unused what a checkpoint holds.
        grace: seconds after which a thread that cannot be interrupted is given up (`Limits.grace_seconds`).
    """

    def __init__(self, enabled: bool = False, grace: float = 60.0) -> None:
        self.enabled, self._grace = enabled, grace
        self._batches: dict[int, _Batch] = {}  # by rollout step; the one that is being made stays until it is
        self._latest: _Batch | None = None  # begun last: threads other than the main one may ask for it

    def check(self, sampler: Sampler) -> None:
        """Refuse a sampler whose engine is, or runs beside, the model that trains. Raises `ConfigError`."""
        require(
            not self.enabled or sampler.own_process(), "model.one_step_off",
            wanted="false, since this sampler cannot sample while the model trains in the same process",
            got=f"true with {type(sampler).__name__}",
            remedy="Use --model.sampler=VLLMServerSampler, whose engines have processes of their own, or leave it off.",
        )  # fmt: skip

    def notes(self, correction: RolloutCorrection) -> list[str]:
        """Lines for people: what nobody corrects."""
        if not self.enabled or correction.corrects():
            return []
        return [
            "one_step_off: completions are sampled with the weights of the step before, and no correction is set; "
            "mismatch/* shows how far they are apart. --model.correction=TruncatedImportance weights each token by it, IcePop "
            "and StatisticRejection drop the worst (docs/corrections.md)"
        ]

    def begin(self, step: int, stream: PromptStream, plan: Plan, tools: RolloutTools) -> None:
        """Sample and verify the first round of rollout step `step` with the weights that the sampler has now, if enabled."""
        if not self.enabled:
            return
        prompts = share(range(plan.cut.num_groups), stream.take(plan.cut.num_groups), tools.ranks)
        batch = self._batches[step] = _Batch(step)
        watch = Watchdog(self._grace, end=batch.give_up)
        inner = replace(tools, clock=batch.clock, progress=batch.at, watch=watch, inspect=lambda completion: None)
        seed = rollout_seed(plan, step)
        batch.beat, self._latest = watch.beat, batch
        batch.start(lambda: collect(prompts, inner, completions=plan.completions, params=plan.sampling, seed=seed))

    def ticked(self, done: int, total: int) -> bool:
        """A sign of life of the sampler: True if it works for a thread. Raises in there if the thread is to end."""
        batch = self._latest
        if batch is None or batch.done.is_set():
            return False
        batch.beat()
        batch.at("sampling", done, total)
        return True

    def wait(self, clock: PhaseClock, progress: Progress) -> None:
        """Return when no thread is under way; errors are left to those who need it. The run is not interrupted in here."""
        for batch in self._batches.values():
            with clock("wait"):
                batch.wait(progress)

    def settle(self, tools: RolloutTools) -> None:
        """Wait, and raise what a thread raised: whoever uses its engine next would meet it too. Collective."""
        self.wait(tools.clock, tools.progress)
        for batch in self._batches.values():
            batch.raise_everywhere(tools.ranks)

    def take(self, step: int, tools: RolloutTools) -> Ready | None:
        """What was sampled ahead for rollout step `step`, None if nothing was. Raises what its thread raised. Collective."""
        batch = self._batches.get(step)
        if batch is not None and not self.enabled:
            tools.progress.line(f"rollout step {step + 1}: completions sampled ahead are dropped, model.one_step_off is off")
            self.forget(step)
            return None
        if batch is None:
            if self.enabled and step:
                tools.progress.line(f"rollout step {step + 1}: nothing was sampled ahead, its completions are on-policy")
            return None
        self.settle(tools)
        for phase, seconds in batch.clock.take().items():
            tools.clock.add(f"ahead_{phase}", seconds)

        def ready(prompts: Sequence[tuple[int, Prompt]], completions: int) -> list[Numbered]:
            rollouts = with_prompts(batch.rollouts, prompts, completions)
            for _, rollout in rollouts[:1]:
                tools.inspect(rollout.completion)
            return rollouts

        return ready

    def forget(self, step: int) -> None:
        """Rollout step `step` has been made; a checkpoint needs its rollouts no longer."""
        self._batches.pop(step, None)

    def observe(self, book: MetricBook, batch: RolloutBatch, step: int) -> None:
        """How many updates of the sampler's weights lie between the completions and the step that trains on them."""
        if self.enabled:
            book.add("rollout/staleness_steps", (step - batch.versions_B).sum(), batch.num_sequences)

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def state(self, step: int, ranks: Ranks) -> dict[str, Any] | None:
        """All ranks' rollouts of rollout step `step`, the next that will be made; waits for them. Collective.

        None if there are none. A thread that failed, on any rank, leaves none: its error is still raised by `take`.
        """
        batch = self._batches.get(step)
        if batch is None:
            return None
        batch.wait(Progress())
        parts = ranks.all_objects(None if batch.error is not None else packed(batch.rollouts))
        return None if any(part is None for part in parts) else {"step": step, "ranks": parts}

    def restore(self, state: dict[str, Any] | None, ranks: Ranks) -> None:
        """The inverse of `state`, on any number of ranks: groups go to the ranks that will make them."""
        self._batches.clear()
        if state is not None:
            everything = [one for part in state["ranks"] for one in unpacked(part)]
            batch = self._batches[state["step"]] = _Batch(state["step"])
            batch.rollouts = [one for one in everything if one[0] % ranks.size == ranks.rank]
            batch.done.set()

    # The end ---------------------------------------------------------------------------------------------------------

    def close(self, progress: Progress) -> None:
        """End the thread, if one is under way, and say what it raised if nobody has heard it. May be called twice."""
        for batch in self._batches.values():
            batch.end()
            if batch.error is not None and not batch.told and not isinstance(batch.error, _EndedError):
                progress.line(f"{batch.name} had failed too: {batch.error}")
        self._batches.clear()


class _EndedError(BaseException):
    """Raised inside a thread that is to end; no `except Exception` in its way may swallow it."""


class _Place(Progress):
    """Where a thread is, for the main thread to show: a terminal is not written to from two sides."""

    def __init__(self) -> None:
        super().__init__(None)
        self.now = ("sampling", 0, 0)
        self.ending = threading.Event()

    def __call__(self, phase: str, done: int, total: int, note: str = "") -> None:
        """Note where it is. Raises `_EndedError` if the thread is to end."""
        if self.ending.is_set():
            raise _EndedError
        self.now = (phase, done, total)


class _Batch:
    """The rollouts of one step on this rank. `done` is set when `rollouts` or `error` says what became of them."""

    def __init__(self, step: int) -> None:
        self.name = f"sampling rollout step {step + 1} ahead"
        self.rollouts: list[Numbered] = []
        self.error: BaseException | None = None
        self.told = False
        self.done, self.at, self.clock = threading.Event(), _Place(), PhaseClock(settle=lambda: None)
        self.beat: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, work: Callable[[], list[Numbered]]) -> None:
        # A daemon: the process may end without it where it cannot be interrupted.
        self._thread = threading.Thread(target=self._run, args=(work,), name=self.name, daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], list[Numbered]]) -> None:
        try:
            rollouts = work()
        except BaseException as error:  # noqa: BLE001 -- the edge of the thread: the main thread raises it again
            self._finish([], error)
        else:
            self._finish(rollouts, None)

    def _finish(self, rollouts: list[Numbered], error: BaseException | None) -> None:
        with self._lock:
            if not self.done.is_set():
                self.rollouts, self.error = rollouts, error
                self.done.set()

    def give_up(self, code: int) -> None:
        """The watchdog's last resort: the thread is left behind, and the main thread hears of it."""
        self._finish([], RunError("no sign of life, and it could not be interrupted; the stacks of all threads are above"))

    def wait(self, progress: Progress) -> None:
        """Until it is done; its own watchdog sees to it that this ends. Shows where it is."""
        while not self.done.wait(LOOK):
            progress.show(*self.at.now, note="(ahead)")

    def raise_everywhere(self, ranks: Ranks) -> None:
        """The thread's error, on every rank, so that none waits for another. Collective."""
        reasons = ranks.all_objects(None if self.error is None else f"{type(self.error).__name__}: {self.error}")
        self.told = True
        if isinstance(self.error, RunError):
            raise RunError(f"{self.name}: {self.error}") from self.error
        if self.error is not None:
            self.error.add_note(f"raised while {self.name}")
            raise self.error
        failed = next((f"rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason is not None), None)
        if failed is not None:
            raise RunError(f"{self.name}: {failed}")

    def end(self) -> None:
        """Ask the thread to end, then interrupt it, then leave it to the end of the process."""
        self.at.ending.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and self._thread.ident is not None:
                raise_in(self._thread.ident, _EndedError)
                self._thread.join(PATIENCE)


def another_step(step: int, updates: int, max_epochs: int | None, max_steps: int) -> bool:
    """Whether a run with Lightning's limits (-1 and None: no limit) comes to rollout step `step`."""
    return (max_epochs in (None, -1) or step < max_epochs) and (max_steps == -1 or step * updates < max_steps)
