"""The Lightning shell of an ablation: a `predict` of one item that records, replays and hands the findings over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from delta_lightning.ablation.gradients import gradient_products
from delta_lightning.ablation.page import answers_page, token_strings
from delta_lightning.ablation.recording import Fingerprint, Recording, fingerprint
from delta_lightning.ablation.replay import replay
from delta_lightning.ablation.summary import Sizes, summarise
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.report.provenance import provenance
from delta_lightning.trainer.checks import check_model_config
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.reference import ReferencePolicy
from delta_lightning.trainer.step import make_batch, score_batch
from delta_lightning.types import Need


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an ablation is asked for.

    Attributes:
        assigners: by label. step: number of the rollout step, from 0: which prompts, and what schedules see.
        recording: rollouts to reuse, or None to sample. config: the resolved config as YAML, kept in a new recording.
        gradient_gib: memory for gradients, GiB (`gradient_products`). sizes: of what is written.
        keep: is given a new recording as soon as it exists: what fails afterwards must not cost the sampling.
    """

    assigners: Mapping[str, CreditAssigner]
    step: int
    recording: Recording | None
    config: str
    gradient_gib: float
    sizes: Sizes
    keep: Callable[[Recording], None]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What an ablation came to: the summary, the page of answers, and the recording."""

    summary: dict[str, Any]
    answers: str
    recording: Recording


class AblationData(PromptData):
    """The prompts of an ablation; its settings are those of `PromptData`."""

    def predict_dataloader(self) -> list[int]:
        """One item: the ablation itself."""
        return [0]


class AblationModule(PolicyModule):
    """A policy on whose rollouts credit assigners are compared; its settings are those of `PolicyModule`."""

    request: Request | None = None
    findings: Findings | None = None

    def configure_model(self) -> None:
        """Load the policy, and copy the reference policy, before a checkpoint is restored, if a part needs one."""
        super().configure_model()
        assert self.request is not None
        if self.reference is None and Need.REFERENCE in self._needs(self.request):
            self.reference = ReferencePolicy(self.policy, device=self.trainer.strategy.root_device, ranks=Ranks.current())

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The item stays as it is."""
        return batch

    def predict_step(self, item: int, item_idx: int) -> bool:
        """Record or reuse, score once, let every assigner give its credit, take the gradients."""
        request = self.request
        assert request is not None
        self.policy.eval()
        self.progress.context("ablation")
        present = fingerprint(self.policy)
        recording = request.recording or self._record(request, present)
        recording.check_weights(present)
        self.findings = self._compare(request, recording)
        return True  # Lightning warns of nothing

    def _record(self, request: Request, present: Fingerprint) -> Recording:
        """Sample and judge one rollout step."""
        tools, step = self.tools(), request.step
        self.sync(step, MetricBook())
        groups = self.plan.cut.num_groups
        stream = self.data.stream(step * groups, groups, seed=self.plan.seed)
        batch, micro = make_batch(step, stream, self.parts, self.plan, tools, MetricBook())
        recording = Recording(
            batch=batch.to("cpu"), micro=micro, step=step, seed=self.plan.seed, temperature=self.plan.sampling.temperature,
            weights=present, versions=provenance()["versions"], config=request.config,
        )  # fmt: skip
        request.keep(recording)
        return recording

    def _needs(self, request: Request) -> frozenset[Need]:
        """What one scoring pass must compute for all assigners, and for the loss; penalties are no part of an ablation."""
        parts = [dataclasses.replace(self.parts, penalties=(), credit=credit) for credit in request.assigners.values()]
        return frozenset().union(*(one.rollout_needs() | one.update_needs() for one in parts))

    def _compare(self, request: Request, recording: Recording) -> Findings:
        tools, scorer, sizes, needs = self.tools(), self.scorer, request.sizes, self._needs(request)
        batch = recording.batch.to(scorer.device)
        plan = dataclasses.replace(self.plan, seed=recording.seed)
        scored = score_batch(
            recording.step, batch, recording.micro, self.parts, plan, scorer, tools, MetricBook(), needs=needs,
            reference=None if self.reference is None else self.reference.scorer(plan.sampling.temperature, plan.cut.layout),
        )  # fmt: skip
        count = len(request.assigners)
        done = iter(range(count))
        replayed, experiences = replay(
            scored, request.assigners, lambda label: self.progress("credit", next(done) + 1, count, label)
        )
        gram_KK = gradient_products(
            experiences, scored.view, recording.micro, self.parts, scorer, budget_bytes=request.gradient_gib * 2**30,
            tick=lambda done, total: self.progress("gradients", done, total),
        )  # fmt: skip
        strings = token_strings(self.tokenizer, sorted(set(replayed.token_N.tolist())))
        summary = summarise(
            replayed, gram_KK, strings=strings.__getitem__, sizes=sizes, rollouts=_facts(recording),
            described={label: repr(assigner) for label, assigner in request.assigners.items()},
        )  # fmt: skip
        page = answers_page(
            replayed, scored.view.batch.to("cpu"), sizes=sizes, strings=strings.__getitem__,
            decode=lambda ids: str(self.tokenizer.decode(ids, skip_special_tokens=False)),
        )  # fmt: skip
        return Findings(summary=summary, answers=page, recording=recording)


def check_assigners(module: PolicyModule, assigners: Mapping[str, CreditAssigner]) -> None:
    """Refuses an assigner that the config's other parts cannot use, as training would. Raises `ConfigError`."""
    for label, assigner in assigners.items():
        try:
            parts = dataclasses.replace(module.parts, credit=assigner)
            check_model_config(parts, module.plan)
        except ConfigError as error:
            raise ConfigError(
                f"assigners, {label} ({error.what})", wanted=error.wanted, got=error.got,
                remedy=error.remedy.replace("--model.credit", "--assigners"),
            ) from error  # fmt: skip


def _facts(recording: Recording) -> dict[str, Any]:
    batch = recording.batch
    return {
        "step": recording.step,
        "seed": recording.seed,
        "temperature": recording.temperature,
        "prompts": len(torch.unique(batch.group_ids_B)),
        "sequences": batch.num_sequences,
        "reward_mean": float(batch.rewards_B[batch.valid_B].double().mean()) if bool(batch.valid_B.any()) else None,
        "weights": dataclasses.asdict(recording.weights),
    }
