"""The model's own code run on tensors that have shapes and no contents: what passes keep and what they need at their peak.

Attention counts as the kernel that PyTorch chooses on a CPU: with `sdpa` a fused one, which keeps q, k, v, the output and one
float32 per query and head, as the fused kernels of GPUs do. A sliding window is a mask of T x T, which that kernel widens
to the dtype of the scores in every layer that has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_lightning.functional.logprobs import HeadOutput, chunk_tokens, chunked_head
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.planning.meter import LiveBytes
from delta_lightning.planning.sums import Sums

CHUNKS = 4  # of the head that are run; the others would free what they take, as the fourth does


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One micro-batch: `rows` of `columns` positions, padding included, `trained` of their tokens with a log-probability.

    `packed` rows of several sequences are told apart by a mask of all pairs of positions.
    """

    rows: int
    columns: int
    trained: int
    packed: bool = False


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Bytes beyond parameters, and beyond gradients where they were there before or are summed into shards.

    Attributes:
        forward: most at a time up to the end of the forward pass, the head included.
        kept: held for the backward pass when the head begins. backward: most at a time in the backward pass; 0 without one.
    """

    forward: int
    kept: int
    backward: int


class DryModel:
    """A causal LM (body `model.model`, head `model.lm_head`) whose passes cost next to nothing.

    Args:
        meta: the model on the meta device; it is left without parameters of its own.
        dtype: that parameters are computed in; None for their own. activation_checkpointing: as in the module.
        head_budget_bytes: of float32 logits, as in the scorer. sums: of gradients over ranks; None where nothing is sharded.
    """

    def __init__(
        self,
        meta: Any,
        *,
        dtype: torch.dtype | None,
        activation_checkpointing: bool,
        head_budget_bytes: int,
        sums: Sums | None = None,
    ) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._budget, self._sums = head_budget_bytes, sums
        narrow = meta if dtype is None else meta.to(dtype)
        with self._mode:
            self._model = narrow.to_empty(device="cpu").eval()
        if meta.config.tie_word_embeddings:
            self._model.lm_head.weight = self._model.model.embed_tokens.weight
        body = self._model.model
        self._kinds: list[str] = list(getattr(meta.config, "layer_types", None) or ["layer"] * len(body.layers))
        self._all, self._few = list(body.layers), _enough(self._kinds)
        self._recompute = activation_checkpointing

    def score(self, one: Pass, *, entropy: bool = False) -> Peaks:
        """A pass without gradient, as `Scorer.score` makes it."""
        with self._mode, self._layers(self._few), self._metered() as meter, torch.no_grad():
            _, kept, _ = self._forward(one, meter, entropy)
        return Peaks(forward=meter.peak, kept=kept, backward=0)

    def update(self, one: Pass, *, entropy: bool = False, accumulating: bool) -> Peaks:
        """Forward and backward of a micro-batch.

        Args:
            accumulating: gradients of an earlier micro-batch are there already; else they are made, and count. Of a sharded
                model they are always made, and count until they are summed.
        """
        there = accumulating and self._sums is None
        # Gradients that are made pile up while activations go, so where the peak is depends on all layers.
        with self._mode, self._layers(self._few if there else len(self._all)), self._recomputing():
            parameters = [p for p in self._model.parameters() if p.requires_grad]
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter) if there else None
            with self._metered() as meter, nullcontext() if self._sums is None else self._sums.of(self._model):
                out, kept, others = self._forward(one, meter, entropy)
                forward = meter.restart()
                values = (out.logprobs_N, out.entropies_N) if entropy else (out.logprobs_N,)
                torch.stack([value.sum() for value in values]).sum().backward()  # type: ignore[no-untyped-call]
            for parameter in parameters:
                parameter.grad = None
        return Peaks(forward=forward + others, kept=kept + others, backward=meter.peak + others)

    def _forward(self, one: Pass, meter: LiveBytes, entropy: bool) -> tuple[HeadOutput, int, int]:
        """The head's values, bytes kept when it begins, and bytes that the layers which were left out would have kept."""
        model, marks = self._model, []
        handles = [
            module.register_forward_pre_hook(lambda *_: marks.append(meter.live))
            for module in [*model.model.layers, model.model.norm]
        ]
        tokens_BT = torch.zeros(one.rows, one.columns, dtype=torch.int64)
        hidden_BTD = model.model(input_ids=tokens_BT, attention_mask=self._masks(one), use_cache=False).last_hidden_state
        places_N = torch.zeros(one.trained, dtype=torch.int64)
        hidden_ND = hidden_BTD[:, :-1][places_N, places_N]
        del hidden_BTD
        for handle in handles:
            handle.remove()
        of_kind = {kind: after - before for kind, before, after in zip(self._kinds, marks, marks[1:], strict=False)}
        others = sum(of_kind[kind] for kind in self._kinds[len(marks) - 1 :])
        kept, weight_VD = meter.live, model.lm_head.weight
        chunk = chunk_tokens(weight_VD.shape[0], self._budget)
        some = min(one.trained, CHUNKS * chunk)
        first_ND = hidden_ND[:some]
        out = chunked_head(first_ND, weight_VD, places_N[:some], chunk=chunk, with_entropy=entropy)
        _hold_others(out, hidden_ND, first_ND)
        return out, kept, others

    def _masks(self, one: Pass) -> dict[str, Tensor | None]:
        """What `transformers` makes of no mask: none for causal attention, one of T x T for all rows for a sliding window."""
        config = self._model.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        all_pairs = one.packed or config._attn_implementation == "eager"
        dtype = self._model.lm_head.weight.dtype if config._attn_implementation == "eager" else torch.bool
        square = torch.zeros(1, 1, one.columns, one.columns, dtype=dtype).expand(one.rows, -1, -1, -1)
        return {kind: None if kind == "full_attention" and not all_pairs else square for kind in kinds}

    def _metered(self) -> LiveBytes:
        grads = [p.grad for p in self._model.parameters() if p.grad is not None]
        return LiveBytes([*self._model.parameters(), *self._model.buffers(), *grads])

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        if self._recompute:
            recompute_layers(self._model)
        try:
            yield
        finally:
            for layer in self._model.model.layers:
                vars(layer).pop("forward", None)  # that of its class again

    @contextmanager
    def _layers(self, count: int) -> Iterator[None]:
        self._model.model.layers = torch.nn.ModuleList(self._all[:count])
        try:
            yield
        finally:
            self._model.model.layers = torch.nn.ModuleList(self._all)


def _enough(kinds: list[str]) -> int:
    """How many of the first layers have one of each kind with another before it: the first keeps the embedding's output too."""
    return min(len(kinds), 1 + max(1, *(kinds.index(kind) for kind in kinds)))


def _hold_others(out: HeadOutput, hidden_ND: Tensor, first_ND: Tensor) -> None:
    """The backward pass of a head that was given the first rows only holds the gradient of the others too."""
    node, others = out.logprobs_N.grad_fn, len(hidden_ND) - len(first_ND)
    if node is None or others == 0:
        return
    held: list[Tensor] = []

    def begin(_: Any) -> None:
        held.append(hidden_ND.new_empty(others, hidden_ND.shape[1]))

    def end(_: Tensor) -> None:
        held.clear()

    node.register_prehook(begin)
    first_ND.register_hook(end)  # type: ignore[no-untyped-call]
