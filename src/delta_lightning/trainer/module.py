"""The Lightning shell around `trainer/step.py`: holds the parts, the model and the engines, and computes nothing itself."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from delta_lightning.interfaces import (
    AdvantageEstimator,
    CreditAssigner,
    Penalty,
    PolicyLoss,
    Reduction,
    RewardShaping,
    RolloutCorrection,
    RolloutFilter,
    Sampler,
    SamplerContext,
    SamplerSession,
    TokenWeighting,
    Verifier,
)
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.costs import RowCost
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.padded import Padded
from delta_lightning.models.scorer import Scorer
from delta_lightning.trainer.ahead import Ahead, another_step
from delta_lightning.trainer.base_state import refuse_other_base, stamp
from delta_lightning.trainer.buffer import Buffer, MicroBatch
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.checks import HeldOut, check_model_config, check_prompt_count, check_room, sampling_notes
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.evaluating import Evaluating
from delta_lightning.trainer.gradients import Gradients, let_go
from delta_lightning.trainer.loading import load_policy
from delta_lightning.trainer.memory import MicroBudget
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.observe import derived, observe_statistics, observe_update
from delta_lightning.trainer.pace import paced_loader
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.reference import ReferencePolicy
from delta_lightning.trainer.rollouts import RolloutTools, several_sources
from delta_lightning.trainer.step import Parts, Plan, make_batch, make_experience, micro_batch_loss, mini_batch_statistics
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.trainer.view import RolloutView
from delta_lightning.trainer.watchdog import Limits, Watchdog
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof, check_text
from delta_lightning.types import Completion, Need, SamplingParams, Statistics
from delta_lightning.verifiers.pool import VerifierPool


class PolicyModule(Evaluating):
    """A policy trained by RLVR; an epoch is one rollout step, a `training_step` one micro-batch.

    Args:
        backbone: the model and its tokenizer. sampler: the engine that completes prompts. verifier: what judges them.
        advantage: rewards to advantages. credit: how much each token counts. loss: the policy loss.
        weighting: weights that follow the current policy. reduction: how per-token losses become one number.
        correction: for the difference between sampler and trainer. filters: which groups and tokens are trained on.
        shaping: changes rewards before anything reads them. penalties: additive per-token terms; those that need a reference
            policy get a frozen copy of the policy as it was loaded. adapter: trained in place of the model, which is frozen.
        optimizer, scheduler: built from `class_path`; the schedule advances once per optimiser step.
        sampling: how completions are sampled. held_out: how `validate` samples.
        prompts_per_step: prompts of one rollout step, over all ranks. completions_per_prompt: size of a group.
        updates_per_step: optimiser steps per rollout step. micro_batches: forward passes per optimiser step.
        tokens_per_micro_batch: largest cost of a micro-batch on each rank, in the layout's unit; more micro-batches than
            `micro_batches` where a step needs them. layout: how rows go through the model: padded or packed.
        verdicts: what statuses of verdicts do. cache: where hidden states are kept between scoring and credit.
        activation_checkpointing: layers keep their inputs only and run again in the backward pass: less memory, more time.
        max_grad_norm: global norm to which gradients are clipped; 0 leaves them.
        max_skipped_updates: updates in a row that are left out because their gradient is not finite; one more ends the run.
        refill_rounds: how often prompts whose groups the filters drop are replaced by the next (dynamic sampling); 0: masked.
        one_step_off: sample the next rollout step while this one trains, with the weights that began it; needs a sampler with
            processes of its own. Each step but the first then trains on completions of the weights one step before.
        weight_check: what the sampler must prove after each update of its weights.
        limits: longest silence of each phase that waits for the sampler. seed: of every random draw of the run.
    """

    def __init__(
        self,
        backbone: Backbone,
        sampler: Sampler,
        verifier: Verifier,
        advantage: AdvantageEstimator,
        credit: CreditAssigner,
        loss: PolicyLoss,
        weighting: TokenWeighting,
        reduction: Reduction,
        correction: RolloutCorrection,
        shaping: list[RewardShaping] = [],  # noqa: B006
        filters: list[RolloutFilter] = [],  # noqa: B006
        penalties: list[Penalty] = [],  # noqa: B006
        adapter: Adapter | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        sampling: SamplingParams = SamplingParams(),  # noqa: B008
        held_out: HeldOut = HeldOut(),  # noqa: B008
        prompts_per_step: int = 128,
        completions_per_prompt: int = 16,
        updates_per_step: int = 4,
        micro_batches: int = 4,
        tokens_per_micro_batch: int | None = None,
        layout: RowLayout = Padded(),  # noqa: B008
        verdicts: VerdictPolicy = VerdictPolicy(),  # noqa: B008
        cache: HiddenCache = HiddenCache(),  # noqa: B008
        activation_checkpointing: bool = False,
        max_grad_norm: float = 1.0,
        max_skipped_updates: int = 3,
        refill_rounds: int = 0,
        one_step_off: bool = False,
        weight_check: WeightCheck = WeightCheck(),  # noqa: B008
        limits: Limits = Limits(),  # noqa: B008
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.adapter, self.sampler, self.verifier = backbone, adapter, sampler, verifier
        self.parts = Parts(
            shaping=tuple(shaping), filters=tuple(filters), advantage=advantage, correction=correction, credit=credit,
            weighting=weighting, loss=loss, penalties=tuple(penalties), reduction=reduction,
        )  # fmt: skip
        self.strict_loading = adapter is None  # else a checkpoint has not all; `trainer/base_state.py` is strict instead
        self.make_optimizer, self.make_scheduler, self.activation_checkpointing = optimizer, scheduler, activation_checkpointing
        self.plan = Plan(
            cut=Cut(num_groups=prompts_per_step, updates=updates_per_step, micro=micro_batches, layout=layout,
                    budget=tokens_per_micro_batch),
            completions=completions_per_prompt, sampling=sampling, cache=cache, seed=seed, refill_rounds=refill_rounds,
        )  # fmt: skip
        self.held_out, self.verdicts, self.memory = held_out, verdicts, MicroBudget(tokens_per_micro_batch)
        self.gradients = Gradients(max_norm=max_grad_norm, max_skipped=max_skipped_updates)
        check_model_config(self.parts, self.plan)
        self.ahead = Ahead(one_step_off, limits.grace_seconds)
        self.ahead.check(sampler)
        self.weight_check, self.limits, self.watch = weight_check, limits, Watchdog(limits.grace_seconds)
        self._begin()

    def _begin(self) -> None:
        """Nothing is loaded, opened or counted yet."""
        self.policy: Any = None
        self.tokenizer: Any = None
        self.progress, self.clock = Progress(), PhaseClock()
        self.rollout_book, self.update_book, self.held_out_book = MetricBook(), MetricBook(), MetricBook()
        self.reference: ReferencePolicy | None = None
        self._session: SamplerSession | None = None
        self._proof: WeightProof | None = None
        self._served: dict[str, Any] = {}  # what a checkpoint holds of the proof
        self._pool: VerifierPool | None = None
        self._inspected, self._verifier_checked, self._sampling_said = False, False, False
        self._statistics: tuple[Statistics | None, Statistics | None] = (None, None)

    # Setting up ------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> PromptData:
        """The data module of the run."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PromptData)
        return data

    def setup(self, stage: str) -> None:
        """Read and check the data; nothing heavy has loaded yet."""
        self.progress = self.progress if self.progress.active else Progress.for_rank(self.global_rank)
        self.check_verifier()
        self.tokenizer = self.tokenizer or self.backbone.tokenizer()
        self.data.prepare(self.tokenizer, self.verifier, self.progress)
        room = check_room(self.data, self.plan, self.backbone.context_length())
        layout = self.plan.cut.layout.check(self.backbone.attention_kernel(), self.plan.cut.budget)
        if not self._sampling_said:  # set up again for every stage
            for line in [*room, *sampling_notes(self.plan.sampling), *self.ahead.notes(self.parts.correction), *layout]:
                self.progress.line(line)
        self._sampling_said = True
        if stage == "fit":
            check_prompt_count(self.data, self.plan)
            self.data.attach(paced_loader(self.trainer, self.make_rollouts, self.plan.cut, self.ahead))

    def check_verifier(self) -> None:
        """Refuse a verifier that cannot work here, and say what it found. Raises `ConfigError`; asks only once."""
        if not self._verifier_checked:
            self.verdicts.check_limit(self.verifier.limit_seconds())
            for line in self.verifier.check():
                self.progress.line(line)
        self._verifier_checked = True

    def load_context(self) -> LoadContext:
        """What the backbone may use while it loads."""
        return LoadContext(
            seed=self.plan.seed, demonstrations=lambda: self.data.demonstrations(self.tokenizer), tick=self.progress,
            say=self.progress.line,
        )  # fmt: skip

    def configure_model(self) -> None:
        """Load the policy, once, and copy the reference policy if a part needs one."""
        if self.policy is None:
            recompute, strategy, context = self.activation_checkpointing, self.trainer.strategy, self.load_context()
            self.policy = load_policy(self.backbone, self.adapter, context, strategy, activation_checkpointing=recompute)
            check_room(self.data, self.plan, getattr(self.policy.config, "max_position_embeddings", None))
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        if fitting and self.reference is None and Need.REFERENCE in self.parts.rollout_needs():
            # Not in a later hook: a checkpoint has not been restored yet, so this is the policy that the run began with.
            device = self.trainer.strategy.root_device
            self.reference = ReferencePolicy(self.policy, device=device, ranks=Ranks.current())
            self.progress.line(f"reference policy: {self.reference.bytes() / 2**20:,.1f} MiB on this rank, frozen")

    def configure_optimizers(self) -> Any:
        """Optimiser and, if any, a schedule that advances with optimiser steps."""
        optimizer = self.make_optimizer([p for p in self.policy.parameters() if p.requires_grad])
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "step"}}

    def close(self) -> None:
        """Stop the engines: sampler and verifier processes, and the thread that uses them."""
        self.ahead.close(self.progress)
        if self._session is not None:
            self._session.close()
        if self._pool is not None:
            self._pool.close()
        self._session, self._proof, self._pool = None, None, None

    # One rollout step ------------------------------------------------------------------------------------------------

    @property
    def scorer(self) -> Scorer:
        """The policy as a scorer at the sampling temperature."""
        return Scorer(model=self.policy, temperature=self.plan.sampling.temperature, layout=self.plan.cut.layout)

    def tools(self) -> RolloutTools:
        """Engines of this rank, started at the first call."""
        ranks = Ranks.current()
        if self._pool is None:
            self._pool = VerifierPool(self.verifier, workers=self.verdicts.workers, timeout=self.verdicts.timeout_seconds)
        if self._session is None:
            context = SamplerContext(
                model=self.policy, tokenizer=self.tokenizer, device=self.device, rank=ranks.rank, world_size=ranks.size,
                tick=self._sampling, share=ranks.all_objects, say=self.progress.line, progress=self.progress,
            )  # fmt: skip
            with self.watch("starting the sampler", self.limits.start_seconds):
                self._session = self.sampler.open(context)
        return RolloutTools(
            session=self._session, judge=self._pool, policy=self.verdicts, ranks=ranks, clock=self.clock,
            progress=self.progress, limits=self.limits, watch=self.watch, inspect=self._inspect,
        )  # fmt: skip

    def _sampling(self, done: int, total: int) -> None:
        if not self.ahead.ticked(done, total):
            self.watch.beat()
            self.progress("sampling", done, total)

    def _inspect(self, completion: Completion) -> None:
        """The first completion shows whether sampler and trainer have the same tokenizer."""
        if not self._inspected:
            check_text(completion, self.tokenizer)
        self._inspected = True

    def sync(self, version: int, book: MetricBook) -> None:
        """Hand the policy's weights to the sampler, and have it prove that they arrived. Collective. Raises `RunError`."""
        session = self.tools().session
        if self._proof is None:
            context = getattr(self.policy.config, "max_position_embeddings", None)
            self._proof = WeightProof(self.weight_check, self.data.known_prompts(), context, self._served)
        with self.clock("sync"), self.watch("updating the sampler's weights", self.limits.sync_seconds):
            self._proof.deliver(session, version, self.policy, book)
            self._proof.probe(session, version, self.policy, book)

    def make_rollouts(self, step: int, drawn: int) -> Buffer:
        """Rollout step `step`, credited and cut into micro-batches; the run has drawn `drawn` prompts before it."""
        self.policy.eval()  # no dropout anywhere: old and new log-probabilities must be of the same function
        tools = self.tools()
        steps = self.trainer.max_epochs if self.trainer.max_epochs and self.trainer.max_epochs > 0 else "?"
        self.progress.context(f"step {step + 1}/{steps}")
        ready = self.ahead.take(step, tools)
        self.sync(step, self.rollout_book)
        stream = self.data.stream(drawn, self.plan.cut.num_groups, seed=self.plan.seed)
        book, frozen, plan = self.rollout_book, self.reference, replace(self.plan, cut=self.memory.of(self.plan.cut))
        reference = None if frozen is None else frozen.scorer(plan.sampling.temperature, plan.cut.layout)
        batch, micro = make_batch(step, stream, self.parts, plan, tools, book, ready, RowCost.of(self.policy))
        assert self._pool is not None
        book.maximum("verdict/workers_replaced", self._pool.counts.replaced)
        self.ahead.observe(book, batch, step)
        stream.observe(book)
        if not self.ahead.enabled:
            tools.session.rest()
        if another_step(step + 1, self.plan.cut.updates, self.trainer.max_epochs, self.trainer.max_steps):
            following = self.data.stream(stream.drawn, self.plan.cut.num_groups, seed=self.plan.seed)
            self.ahead.begin(step + 1, following, self.plan, tools)
        buffer = make_experience(step, batch, micro, self.parts, plan, self.scorer, tools, book, reference, self.memory)
        self.ahead.forget(step)
        return replace(buffer, metrics=derived(several_sources(self.rollout_book.take(tools.ranks))), drawn=stream.drawn)

    # Updates ---------------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: MicroBatch, batch_idx: int) -> None:
        """Start the update clock; before the first micro-batch of an optimiser step take its statistics."""
        self._started = time.perf_counter()
        self.progress("updating", batch.index + 1, self.plan.cut.updates * batch.per_update)
        if batch.begins:
            self._statistics = self._mini_batch_statistics(batch.update)

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        """One micro-batch's share of the loss, scaled so that Lightning's and the strategy's averaging undo themselves."""
        if any(one is not None and one.keep_BT is not None for one in self._statistics):
            batch = self._buffer().micro_batch(batch.index).to(self.device)  # the mask shrank after it was handed out
        loss, scores = micro_batch_loss(batch.experience, batch.totals, self.parts, self.scorer, self._statistics)
        counts = batch.begins and Ranks.current().rank == 0  # once per optimiser step: shares add up
        self.update_book.add("update/loss", loss.detach(), float(counts))
        with torch.no_grad():
            values = dict(self.parts.loss.metrics(batch.experience, scores))
            observe_update(self.update_book, batch.experience, scores, values)
        return loss * Ranks.current().size * self.trainer.accumulate_grad_batches

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by the global norm; an update without a finite one is left out."""
        norm = self.gradients.clip(self.policy, step=self.trainer.global_step, say=self.progress.line)
        self.update_book.add("update/grad_norm", norm)
        self.update_book.maximum("update/skipped", self.gradients.skipped)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counts of updates left out, the micro-batch budget, what the sampler served, what base an adapter has."""
        stamp(checkpoint, self.policy)
        checkpoint["gradients"], checkpoint["memory"] = self.gradients.state_dict(), self.memory.state_dict()
        checkpoint["served"] = self._served if self._proof is None else self._proof.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with what is there, checkpoints of earlier versions have not all; refuses an adapter of another base."""
        refuse_other_base(checkpoint, self.policy)
        self.gradients.load_state_dict(checkpoint.get("gradients", self.gradients.state_dict()))
        self.memory.load_state_dict(checkpoint.get("memory", self.memory.state_dict()), self.progress.line)
        self._served = checkpoint.get("served", {})

    def on_train_batch_end(self, outputs: Any, batch: MicroBatch, batch_idx: int) -> None:
        """After the last micro-batch of an optimiser step: log it, with the rollout step's metrics beside the first.

        Gradients go, which Lightning would keep through the next rollout; callbacks come before this hook, and see them.
        """
        self.clock.add("update", time.perf_counter() - self._started)
        if not batch.ends:
            return
        let_go(self.policy)
        values = self.update_book.take(Ranks.current())
        values["update/learning_rate"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        last = batch.index + 1 == self.plan.cut.updates * batch.per_update
        if last:
            self.ahead.wait(self.clock, self.progress)  # in this step's time: evaluation and checkpoint would wait too
            values |= self._buffer().metrics | {f"seconds/{name}": value for name, value in self.clock.take().items()}
        self.log_dict(values)

    def _buffer(self) -> Buffer:
        assert self.data.loader is not None and self.data.loader.buffer is not None
        return self.data.loader.buffer

    def _mini_batch_statistics(self, update: int) -> tuple[Statistics | None, Statistics | None]:
        """Statistics of the mini-batch that begins; a mask that they shrink is put into the buffer, its totals taken anew."""
        if Need.MINI_BATCH not in self.parts.update_needs():
            return None, None
        buffer = self._buffer()
        experience, micro = buffer.mini_batch(update)
        view = RolloutView(
            experience.batch.to(self.device), micro=micro, scorer=self.scorer, needs=self.parts.update_needs(),
            cache=self.plan.cache, ranks=Ranks.current(), seed=(self.plan.seed, buffer.step),
        )  # fmt: skip
        view.set_advantages(experience.advantages.to(self.device))
        statistics = mini_batch_statistics(experience.to(self.device), view, self.parts)
        observe_statistics(self.update_book, statistics)
        kept = [one.keep_BT for one in statistics if one is not None and one.keep_BT is not None]
        if kept:
            keep_BT = torch.stack(kept).all(0)
            assert self.data.loader is not None
            self.data.loader.buffer = buffer.shrunk(update, keep_BT, Ranks.current())
        return statistics

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Prompts stay as they are."""
        return batch.to(device) if isinstance(batch, MicroBatch) else batch
