"""Time and memory of KTAE and GTPO on synthetic answers: `python benchmarks/credit_groups/run.py ktae 128 16 2000 152000`.

Arguments: part, prompts, answers per prompt, tokens per answer, vocabulary (KTAE only; ids are drawn as V u^4, u uniform, so
that few ids are common and many are rare, as in text). One thread, one rank, CPU. One size per process, since memory is the
peak of the process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from delta_lightning.functional.group_entropy import Cells, shaped_rewards, standardised_sides
from delta_lightning.functional.key_tokens import Answers, Rule, key_token_values
from delta_lightning.report import provenance


def ktae(prompts: int, answers: int, tokens: int, vocabulary: int, generator: torch.Generator) -> Callable[[], Tensor]:
    """All of KTAE but the model: ids to one value per token."""
    rows = prompts * answers
    ids_N = torch.cat([(vocabulary * torch.rand(tokens, generator=generator) ** 4).long() for _ in range(rows)])
    right_B = torch.rand(rows, generator=generator) < 0.5
    given = Answers(ids_N, torch.arange(rows).repeat_interleave(tokens), torch.arange(rows) // answers, right_B)
    return lambda: key_token_values(given, Rule())


def gtpo(prompts: int, answers: int, tokens: int, generator: torch.Generator) -> Callable[[], Tensor]:
    """All of GTPO but the model: entropies to one advantage per token."""
    rows = prompts * answers
    entropies_BT, mask_BT = torch.rand(rows, tokens, generator=generator), torch.ones(rows, tokens, dtype=torch.bool)
    rewards_B = (torch.rand(rows, generator=generator) < 0.5).float()

    def work() -> Tensor:
        cells = Cells.of(mask_BT, torch.arange(rows) // answers, rewards_B > 0)
        shaped_BT = shaped_rewards(entropies_BT, rewards_B, cells, reward_weight=1.0, entropy_weight=0.1, floor=1e-3)
        return standardised_sides(shaped_BT, cells, eps=1e-4)

    return work


def peak_gib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(part: str, *sizes: str) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    numbers = [int(size) for size in sizes]
    work = {"ktae": ktae, "gtpo": gtpo}[part](*numbers, generator)
    before, started = peak_gib(), time.perf_counter()
    work()
    result = {
        "part": part, "sizes": numbers, "seconds": round(time.perf_counter() - started, 2),
        "gib_beyond_inputs": round(peak_gib() - before, 2),
    }  # fmt: skip
    print(json.dumps(result | {"provenance": provenance()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
