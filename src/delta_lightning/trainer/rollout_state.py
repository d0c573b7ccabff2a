"""Judged completions as tensors and plain values, for a checkpoint that is read with `weights_only=True`, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from delta_lightning.errors import ConfigError
from delta_lightning.types import Completion, Prompt, Rollout, Status, Verdict

Numbered = tuple[int, Rollout]  # group id, rollout


def packed(rollouts: Sequence[Numbered]) -> dict[str, Any]:
    """The rollouts in columns. Of a prompt only id and tokens are kept, of log-probabilities what a batch keeps: float32."""
    answers, verdicts = [r.completion for _, r in rollouts], [r.verdict for _, r in rollouts]
    return {
        "groups": [group for group, _ in rollouts],
        "prompt_ids": [r.prompt.id for _, r in rollouts],
        "prompt_tokens": _joined([r.prompt.token_ids for _, r in rollouts], torch.int64),
        "sample_index": [a.sample_index for a in answers],
        "tokens": _joined([a.token_ids for a in answers], torch.int64),
        "text": [a.text for a in answers],
        "finish_reason": [a.finish_reason for a in answers],
        "version": [a.version for a in answers],
        "logprobs": _joined([a.logprobs for a in answers], torch.float32),
        "raw_logprobs": _joined([a.raw_logprobs for a in answers], torch.float32),
        "status": [v.status.value for v in verdicts],
        "reward": [float(v.reward) for v in verdicts],
        "components": [_floats(v.components) for v in verdicts],
        "reason": [v.reason for v in verdicts],
        "token_weights": [None if v.token_weights is None else [float(w) for w in v.token_weights] for v in verdicts],
        "measures": [_floats(v.measures) for v in verdicts],
        "counts": [r.counts for _, r in rollouts],
    }


def unpacked(state: dict[str, Any]) -> list[Numbered]:
    """The inverse of `packed`, but for the prompts' texts, sources and references: see `with_prompts`."""
    columns = dict(state)
    for name in ("prompt_tokens", "tokens", "logprobs", "raw_logprobs"):
        columns[name] = _split(columns[name])
    return [_rollout(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def with_prompts(rollouts: Sequence[Numbered], prompts: Sequence[tuple[int, Prompt]], completions: int) -> list[Numbered]:
    """The rollouts with the run's own prompts, each of which must have its `completions`. Raises `ConfigError` otherwise."""
    own = dict(prompts)
    linked: list[Numbered] = []
    for group, rollout in rollouts:
        prompt, sampled = own.get(group), rollout.prompt
        if prompt is None:
            raise _other(f"no prompt where {sampled.id} was sampled")
        if (prompt.id, prompt.token_ids) != (sampled.id, sampled.token_ids):
            raise _other(f"prompt {prompt.id} of {len(prompt.token_ids)} tokens where {sampled.id} was sampled")
        linked.append((group, replace(rollout, prompt=prompt)))
    if len(linked) != len(own) * completions:
        raise _other(f"{len(own)} prompts x {completions} where {len(linked)} completions were sampled")
    return linked


def _other(got: str) -> ConfigError:
    return ConfigError(
        "ckpt_path", wanted="the prompts and the group size whose completions the checkpoint holds, sampled ahead", got=got,
        remedy="Set the data, the seed, prompts_per_step and completions_per_prompt back, or drop those completions with "
        "--model.one_step_off=false.",
    )  # fmt: skip


def _rollout(row: dict[str, Any]) -> Numbered:
    prompt = Prompt(id=row["prompt_ids"], text="", token_ids=tuple(row["prompt_tokens"]), source="", reference={})
    answer = Completion(
        prompt_id=row["prompt_ids"], sample_index=row["sample_index"], token_ids=row["tokens"], text=row["text"],
        finish_reason=row["finish_reason"], version=row["version"], logprobs=row["logprobs"],
        raw_logprobs=row["raw_logprobs"],
    )  # fmt: skip
    verdict = Verdict(
        status=Status(row["status"]), reward=row["reward"], components=row["components"], reason=row["reason"],
        token_weights=row["token_weights"], measures=row["measures"],
    )  # fmt: skip
    return row["groups"], Rollout(prompt=prompt, completion=answer, verdict=verdict, counts=row["counts"])


def _floats(values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _joined(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> dict[str, Any]:
    """One tensor: thousands of small ones would each be a file within the checkpoint."""
    return {"values": torch.tensor([value for row in rows for value in row], dtype=dtype), "lengths": [len(r) for r in rows]}


def _split(column: dict[str, Any]) -> list[list[float]]:
    return [part.tolist() for part in column["values"].split(column["lengths"])] if column["lengths"] else []
