"""The exact gradient of the whole LM head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from delta_lightning.credit.proxies.proxy import GradientProxy
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.errors import require
from delta_lightning.functional.feature_geometry import Geometry
from delta_lightning.functional.head_geometry import HeadGeometry, HeadTokens
from delta_lightning.functional.sides import Sides


@dataclass(frozen=True, kw_only=True)
class HeadGradient(GradientProxy):
    """v = (e_y - p) outer h, the exact gradient of log p(y) with respect to the LM head, a matrix [V, D].

    Ours, not the paper's. Two tokens agree only if their hidden states do and their errors e_y - p do:
    <v, v'> = <e_y - p, e_y' - p'> <h, h'>. `OutputRow` keeps the factor of h alone. With tied embeddings it is the head's
    half of the gradient; the embedding's half is not part of it. With an adapter the head is frozen, and v is the
    gradient that it would have. The factor 1 / temperature is left out.

    Nothing of shape [N, V] or [N, V D] is held: see `functional.head_geometry`. Cost, in products with the LM head (2 N V D
    FLOPs each): 1 once, for the normaliser of p, and 4 per round of centroids and margins, of which there are K + 1, so
    1 + 4 (K + 1): 9 for the default K = 1, beside 3 in the head's own forward and backward pass. `within_side` evidence costs
    the same, a geometric median 4 more per step and round. Readings of the hidden states: 1 once, and 2 V / V_block per round;
    where the cache does not hold them each reading is a forward pass, so give it a budget. Memory: `block_mib` of sums, up to
    twice as much again beside them, and the logits. Each round sends 16 V D bytes through the sum over ranks. With
    `scope: group` the blocks are as many times smaller as there are groups.

    Args:
        block_mib: float64 centroid sums of one block of the vocabulary, MiB: 16 V_block D bytes; at least one row.
        logits_mib: float32 logits held at a time, MiB; at least one token's are.
    """

    block_mib: int = 512
    logits_mib: int = 64

    def __post_init__(self) -> None:
        for name in ("block_mib", "logits_mib"):
            value = getattr(self, name)
            require(value > 0, f"proxy.{name}", wanted="above 0", got=value, remedy="The default serves most models.")

    def bind(self, tokens: TokenStream, sides: Sides) -> Geometry:
        """Two numbers of each token are kept between passes, 16 N bytes, and nothing else."""

        def stream() -> Iterator[HeadTokens]:
            for part, _, targets_N, hidden_ND in tokens():
                yield HeadTokens(part, hidden_ND, targets_N)

        sizes = {"block_bytes": self.block_mib << 20, "logits_bytes": self.logits_mib << 20}
        return HeadGeometry(stream, tokens.view.head, sides, **sizes)
