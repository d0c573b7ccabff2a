"""Bans, top-k, top-p and min-p inside vLLM, by the trainer's own definition, with the raw log-probabilities kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from delta_lightning.functional.sampling import warp_logits
from delta_lightning.samplers.stopping import Bans
from delta_lightning.types import SamplingParams

REQUEST = "delta_lightning"  # key of `SamplingParams.extra_args` under which a request carries its `Cut`


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What a request takes away from the distribution.

    Attributes:
        request: name of the request. params: its top-p, top-k and min-p. bans: its bad tokens and words, shared by requests
            of one call, which are cut together.
    """

    request: str
    params: SamplingParams
    bans: Bans


class KeptMass:
    """A logits processor of vLLM that cuts the distribution of requests that carry a `Cut`.

    It records the log of the mass that is left at each token. vLLM calls it after the temperature, and reports
    log-probabilities of what it returns (`processed_logprobs`). The raw log-probability of a sampled token, temperature only,
    is that number plus the log of the mass kept, exactly; vLLM itself reports one kind or the other. One definition of bans,
    top-k, top-p and min-p also means one distribution in all engines.
    """

    recorded: ClassVar[dict[str, dict[int, float]]] = {}  # request -> position in the completion -> log of the mass kept

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Cut, list[int]]] = {}  # batch row -> its cut, and its tokens so far (vLLM appends)

    def is_argmax_invariant(self) -> bool:
        """True puts it behind the temperature. Bans are not invariant, but nothing is sampled greedily here."""
        return True

    def cut(self, extra_args: Mapping[str, Any]) -> Cut | None:
        """What the extra arguments of a request's sampling parameters say, None where nothing is cut."""
        return extra_args.get(REQUEST)

    def update_state(self, batch_update: Any) -> None:
        """Rows come, go and move between decoding steps."""
        from vllm.v1.sample.logits_processor.builtin import process_dict_updates

        def added(params: Any, prompt_ids: Any, output_ids: list[int]) -> tuple[Cut, list[int]] | None:
            cut = self.cut(params.extra_args or {})
            return None if cut is None else (cut, output_ids)

        process_dict_updates(self._rows, batch_update, added)

    def apply(self, logits: Tensor) -> Tensor:
        """[rows, V] with the cut rows normalised, -inf where cut."""
        together: dict[int, list[int]] = {}
        for row, (cut, _) in self._rows.items():
            together.setdefault(id(cut.bans), []).append(row)
        for rows in together.values():
            cuts, tokens = zip(*(self._rows[row] for row in rows), strict=True)
            params = cuts[0].params
            raw = torch.log_softmax(logits[rows], -1)
            allowed = cuts[0].bans.mask(raw, tokens)
            warped = warp_logits(allowed, top_p=params.top_p, top_k=params.top_k, min_p=params.min_p)
            warped = torch.log_softmax(warped, -1)  # where only bans cut, nothing is normalised yet
            best = warped.argmax(-1, keepdim=True)
            kept = (raw - warped).gather(-1, best)[:, 0].tolist()
            logits[rows] = warped
            for one, before, mass in zip(cuts, tokens, kept, strict=True):
                # A row in the middle of its prompt is sampled too, and dropped: position 0 is written again.
                self.recorded.setdefault(one.request, {})[len(before)] = mass
        return logits

    @classmethod
    def take(cls, request: str, length: int) -> list[float]:
        """Log of the mass kept at each of the `length` tokens of a request that has ended; forgets the request."""
        recorded = cls.recorded.pop(request)
        return [recorded[position] for position in range(length)]


def logits_processor() -> type:
    """`KeptMass` as the subclass that vLLM asks for; imports vLLM."""
    from vllm.v1.sample.logits_processor import LogitsProcessor

    return type("KeptMassProcessor", (KeptMass, LogitsProcessor), {})
