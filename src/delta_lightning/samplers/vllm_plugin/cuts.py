"""Cut distributions on a server: requests carry what is cut as JSON, the cutting is that of `vllm_warp.KeptMass`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

from delta_lightning.samplers.servers.question import CUT
from delta_lightning.samplers.stopping import Bans
from delta_lightning.samplers.vllm_warp import Cut, KeptMass
from delta_lightning.types import SamplingParams


class ServedCuts(KeptMass, LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """`KeptMass` for requests that came over HTTP."""

    def cut(self, extra_args: Mapping[str, Any]) -> Cut | None:
        """The cut that `servers.question` wrote, or None. Those of one call are cut together."""
        entry = extra_args.get(CUT)
        if entry is None:
            return None
        params, bans = _shared(json.dumps({name: value for name, value in entry.items() if name != "request"}))
        return Cut(request=entry["request"], params=params, bans=bans)


class _GivenBans(Bans):
    """Bans whose words were turned into tokens by the trainer."""

    def __init__(self, never: list[int], sequences: list[tuple[list[int], int]]) -> None:
        self.never, self.sequences = never, sequences


@lru_cache(maxsize=64)
def _shared(text: str) -> tuple[SamplingParams, Bans]:
    fields = json.loads(text)
    bans = _GivenBans(fields.pop("never"), [(list(prefix), last) for prefix, last in fields.pop("sequences")])
    return SamplingParams(**fields), bans
