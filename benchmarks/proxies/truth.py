"""True margins of a causal LM's tokens, and the shares of its parts in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.func import functional_call

from delta_lightning.functional.logprobs import masked_tokens, predicting_states
from delta_lightning.functional.sides import Sides
from delta_lightning.functional.true_margins import LogProbs, ParameterGeometry, Parameters, dot
from delta_lightning.types import RolloutBatch

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def places(model: Any) -> dict[str, Tensor]:
    """Every parameter in every place where it is used: a tied embedding and head are two."""
    return {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}


def token_logprobs(model: Any, batch: RolloutBatch, *, temperature: float, rows: int = 32) -> Callable[[], Iterator[LogProbs]]:
    """log p of the trained tokens as functions of the parameters in `places`, some rows at a time.

    The head is plain: `models.scorer` recomputes logits in an autograd function of its own, which has no forward mode.
    """

    def chunks() -> Iterator[LogProbs]:
        start = 0
        for first in range(0, batch.num_sequences, rows):
            tokens_BT = batch.token_ids_BT[first : first + rows]
            mask_BT = batch.loss_mask_BT[first : first + rows]
            longest = max(2, int(batch.attention_mask_BT[first : first + rows].sum(1).max()))
            tokens_BT, mask_BT = tokens_BT[:, :longest], mask_BT[:, :longest]
            part = slice(start, start + int(mask_BT.sum()))
            if part.start < part.stop:
                yield LogProbs(part, _logprobs(model, tokens_BT, mask_BT, temperature))
            start = part.stop

    return chunks


def _logprobs(model: Any, tokens_BT: Tensor, mask_BT: Tensor, temperature: float) -> Callable[[Parameters], Tensor]:
    def function(parameters: Parameters) -> Tensor:
        body = {name.removeprefix("model."): value for name, value in parameters.items() if name != HEAD}
        out = functional_call(model.model, body, kwargs={"input_ids": tokens_BT, "use_cache": False})
        logits_NV = predicting_states(out.last_hidden_state, mask_BT) @ parameters[HEAD].T / temperature
        return logits_NV.log_softmax(-1).gather(1, masked_tokens(tokens_BT, mask_BT)[:, None])[:, 0]

    return function


class TiedGeometry(ParameterGeometry):
    """True gradients of a model whose head is its embedding: the gradient of that weight is the sum over both places.

    For an untied model it is `ParameterGeometry`.
    """

    def __init__(self, model: Any, tokens: Callable[[], Iterator[LogProbs]], sides: Sides) -> None:
        super().__init__(tokens, places(model), sides)
        self._tied = model.lm_head.weight is model.model.embed_tokens.weight

    def directions(self, weights_2N: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """mu_pos - mu_neg and the midpoint, place by place."""
        positive, negative = self.centroids(weights_2N)
        return (
            {name: positive[name] - negative[name] for name in positive},
            {name: (positive[name] + negative[name]) / 2 for name in positive},
        )

    def tied(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """With the sum of both places in both places. A dot product over places then counts it twice."""
        if not self._tied:
            return values
        both = values[EMBEDDING] + values[HEAD]
        return values | {EMBEDDING: both, HEAD: both}

    def margins(self, weights_2N: Tensor) -> Tensor:
        """2 (<g, d> - <c, d>) over parameters, not places."""
        direction, midpoint = self.directions(weights_2N)
        shared = self.tied(direction)
        # <c, d> over parameters: c place by place against the summed direction, (c_e + c_h) . (d_e + d_h)
        return 2 * (self.inner(shared) - dot(midpoint, shared))

    def shares(self, weights_2N: Tensor) -> dict[str, Tensor]:
        """Margins within parts of the model: `body` (all but embedding and head), `head`, `embedding` (as an input only), and
        `untied`: the sum of the three, the margins of a model with the same weights that are not tied."""
        direction, midpoint = self.directions(weights_2N)
        found = {}
        for part, names in parts(direction).items():
            along = {name: direction[name] for name in names}
            found[part] = 2 * (self.inner(along) - dot(along, midpoint))
        return found | {"untied": found["body"] + found["head"] + found["embedding"]}

    def lengths(self, weights_2N: Tensor) -> dict[str, float]:
        """Share of each part, place by place, in |mu_pos - mu_neg|^2."""
        direction, _ = self.directions(weights_2N)
        pieces = {part: {name: direction[name] for name in names} for part, names in parts(direction).items()}
        squares = {part: float(dot(piece, piece)) for part, piece in pieces.items()}
        return {part: square / sum(squares.values()) for part, square in squares.items()}


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """The places of each part of the model."""
    return {"body": [name for name in names if name not in (EMBEDDING, HEAD)], "head": [HEAD], "embedding": [EMBEDDING]}


def forward_mode(model: Any) -> Any:
    """The model in float64, with attention written out, which has a forward mode."""
    model = model.double().eval()
    model.set_attn_implementation("eager")
    return model.requires_grad_(False)
