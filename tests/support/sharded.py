"""What each rank of a sharded world finds out about a small model, beside what one rank finds out about the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from delta_lightning.models import Padded, RowLayout
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import Sharding, full
from delta_lightning.models.spreading import spread
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Need
from support.sampling import open_session, prompts, sample, tokens

PROBE = [[2, 5, 9, 3, 7], [4, 4, 8]]
LENGTHS = [3, 7, 1, 12, 5]


def share(value: Any) -> Any:
    """Rank 0's object."""
    return Ranks.current().all_objects(value)[0]


def cut(load: Callable[[], Any], **options: Any) -> Any:
    """The model that `load` gives, sharded over all ranks."""
    from torch.distributed.device_mesh import init_device_mesh

    return spread(load, Sharding(mesh=init_device_mesh("cpu", (dist.get_world_size(),)), **options), share)


def is_cut(model: Any) -> bool:
    """Nothing of it is whole."""
    return all(isinstance(parameter, DTensor) for parameter in model.parameters())


def values(model: Any) -> dict[str, torch.Tensor]:
    """Parameters, whole, by name. Collective."""
    return {name: full(parameter).clone() for name, parameter in model.named_parameters()}


def gradients(model: Any, scale: float = 1.0, layout: RowLayout = Padded()) -> dict[str, torch.Tensor]:  # noqa: B008
    """Gradients, whole, of `scale` times a loss in log-probabilities and entropies."""
    rows = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0])
    scores = Scorer(model=model, head_budget_bytes=1 << 9, layout=layout).score(rows, frozenset({Need.ENTROPY}))
    assert scores.entropies_BT is not None
    (scale * (scores.logprobs_BT.sum() - 0.1 * scores.entropies_BT.sum())).backward()
    result = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        result[name] = full(parameter.grad)
        parameter.grad = None
    return result


def first_ratio(model: Any) -> float:
    """Largest difference of log-probabilities between a pass without and one with gradient."""
    rows, scorer = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0]), Scorer(model=model)
    with torch.no_grad():
        old = scorer.score(rows, frozenset()).logprobs_BT
    new = scorer.score(rows, frozenset()).logprobs_BT
    new.sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    return float((new.detach() - old).abs().max())


def completions(model: Any, lengths: list[int]) -> dict[tuple[str, int], list[int]]:
    """Of prompts of these lengths; shorter prompts end earlier."""
    return tokens(sample(open_session(model, threads=1), prompts(lengths), 2))


def probe(model: Any) -> torch.Tensor:
    """The yardstick's log-probabilities."""
    return torch.cat(sequence_logprobs(model, PROBE))
