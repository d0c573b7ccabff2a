"""Supervised warm start of a tiny model: just far enough that it is sometimes right.

How far is measured, not guessed: p, the mean over a batch of the probability that the model gives to the whole worked answer,
    p = mean_i exp(sum_t log p(y_it | x_i, y_i<t)),
is what sampling at temperature 1 reproduces word for word, so it is close to the accuracy at temperature 1 from below. Training
stops when p, averaged over the last batches and taken before each batch is learnt from, reaches the target.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.models.backbone import Demonstration, LoadContext

RECIPE = 1  # raise it whenever the same options would train a different model
WINDOW = 8  # batches over which the probability is averaged
MAX_GRAD_NORM = 1.0
EXAMPLES_REMEDY = "Use a source whose problems carry worked solutions, such as Arithmetic, or leave out warm_start."


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Supervised learning on the training problems' worked solutions, before reinforcement learning (AdamW, constant rate).

    The loss is the mean over answer tokens of a batch, prompts excluded.

    Args:
        target: stop when the mean probability of a whole worked answer reaches this; in (0, 1].
        max_steps: stop after this many batches at the latest.
        batch_size: demonstrations per batch.
        lr: learning rate of AdamW, > 0.
        ramp: batches over which the learning rate rises from 0; at least 1.
        cache: keep the result, and load it if the same model was made from the same data before.
        cache_folder: where; None is `$DELTA_CACHE`, or `~/.cache/delta_lightning` without it.
    """

    target: float = 0.35
    max_steps: int = 800
    batch_size: int = 32
    lr: float = 2e-3
    ramp: int = 20
    cache: bool = True
    cache_folder: str | None = None

    def __post_init__(self) -> None:
        require(0 < self.target <= 1, "WarmStart.target", wanted="in (0, 1]", got=self.target, remedy="Try 0.35.")
        require(self.lr > 0, "WarmStart.lr", wanted="more than 0", got=self.lr, remedy="Try 2e-3.")
        for name in ("max_steps", "batch_size", "ramp"):
            value = getattr(self, name)
            require(value >= 1, f"WarmStart.{name}", wanted="at least 1", got=value, remedy="Raise it.")


@dataclass(frozen=True, kw_only=True)
class WarmStartResult:
    """What a warm start reached: batches learnt from and the mean probability of a whole worked answer."""

    steps: int
    probability: float


def demonstrations_hash(demonstrations: Sequence[Demonstration]) -> str:
    """SHA-256 of the token ids, their order included."""
    digest = hashlib.sha256()
    for prompt, answer in demonstrations:
        digest.update(f"{list(prompt)}{list(answer)};".encode())
    return digest.hexdigest()


def train(
    model: Any, demonstrations: Sequence[Demonstration], options: WarmStart, context: LoadContext, *, seed: int
) -> WarmStartResult:
    """Teach `model`, in place, the demonstrations in an order keyed by `seed`. Raises `ConfigError` if there are none."""
    import torch

    if not demonstrations:
        raise ConfigError("warm_start", wanted="at least 1 worked solution", got="0", remedy=EXAMPLES_REMEDY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0.0)
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / options.ramp))
    recent: deque[float] = deque(maxlen=WINDOW)
    batches = _batches(demonstrations, options, seed)
    step, reached = 0, 0.0
    model.train()
    while step < options.max_steps:
        loss, probability = _loss(model, next(batches))
        recent.append(probability)
        reached = sum(recent) / len(recent)
        if len(recent) == WINDOW and reached >= options.target:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        ramp.step()
        optimizer.zero_grad()
        step += 1
        context.tick(f"warm start (worked answers reproduced: {reached:.0%} of {options.target:.0%})", step, options.max_steps)
    model.eval()
    return WarmStartResult(steps=step, probability=reached)


def _batches(demonstrations: Sequence[Demonstration], options: WarmStart, seed: int) -> Iterator[list[Demonstration]]:
    """Endless batches: a new permutation for each pass, every batch full, batches running on over the end of a pass."""
    import torch

    from delta_lightning.functional.random import stable_hash

    batch: list[Demonstration] = []
    passes = 0
    while True:
        generator = torch.Generator().manual_seed(stable_hash(seed, "warm-start", passes) % 2**62)
        for index in torch.randperm(len(demonstrations), generator=generator).tolist():
            batch.append(demonstrations[index])
            if len(batch) == options.batch_size:
                yield batch
                batch = []
        passes += 1


def _loss(model: Any, batch: list[Demonstration]) -> tuple[Any, float]:
    """Mean loss over answer tokens, nats, and the mean probability of a whole answer."""
    import torch
    from torch.nn.functional import cross_entropy

    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    tokens_BT = torch.zeros(len(batch), longest, dtype=torch.int64)
    mask_BT = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        tokens_BT[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        mask_BT[row, len(prompt) : len(prompt) + len(answer)] = True
    device = model.lm_head.weight.device
    tokens_BT, mask_BT = tokens_BT.to(device), mask_BT.to(device)
    # Padded on the right and causal: no real token sees padding, so no attention mask is needed.
    hidden_BTD = model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    hidden_ND = hidden_BTD[:, :-1][mask_BT[:, 1:]]
    nll_N = cross_entropy(model.lm_head(hidden_ND).float(), tokens_BT[mask_BT], reduction="none")
    nll_B = torch.zeros(len(batch), device=device).index_add_(0, mask_BT.nonzero()[:, 0], nll_N.detach())
    return nll_N.mean(), float(torch.exp(-nll_B).mean())
