"""DelTA's arithmetic and memory traffic beside the training step, by count; writes COSTS.md. Nothing is timed or run.

    python benchmarks/credit/count.py

Everything is per trained token unless it says otherwise. One multiplication and one addition are 2 FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.functional.logprobs import chunk_tokens
from delta_lightning.report import markdown_table

ANSWERS, RANKS = 2048, 8
LENGTHS = (4096, 16384, 65536)
BF16, FLOAT32, FLOAT64 = 2, 4, 8
BALANCE = 300  # FLOPs per byte of memory traffic at which an accelerator is busy with both
BLOCK_BYTES = 512 << 20  # HeadGradient's default


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder with gated feed-forward layers and grouped-query attention."""

    name: str
    layers: int
    width: int
    vocabulary: int
    intermediate: int
    heads: int
    kv_heads: int
    head_width: int = 128

    @property
    def body(self) -> int:
        """Weights that multiply, without the head; norms and the embedding's look-up cost nothing that counts."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the LM head, V D."""
        return self.vocabulary * self.width

    def attention(self, seen: float) -> float:
        """FLOPs of scores and of weighted values of a token that sees `seen` tokens, in all layers."""
        return 4 * self.layers * self.heads * self.head_width * seen

    def forward(self, answer: int) -> float:
        """FLOPs of a forward pass, mean over an answer of `answer` tokens, each of which sees itself and those before it."""
        return 2 * (self.body + self.head) + self.attention((answer + 1) / 2)

    def step(self, answer: int) -> float:
        """FLOPs of scoring (a forward pass) and of the update (forward, and twice that for backward)."""
        return 4 * self.forward(answer)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """FLOPs and bytes read or written."""

    flops: float
    bytes: float


SHAPES = (
    Shape(name="8B", layers=36, width=4096, vocabulary=151936, intermediate=12288, heads=32, kv_heads=8),
    Shape(name="14B", layers=40, width=5120, vocabulary=151936, intermediate=17408, heads=40, kv_heads=8),
    Shape(name="70B", layers=80, width=8192, vocabulary=128256, intermediate=28672, heads=64, kv_heads=8),
)


def output_row(shape: Shape, refinements: int = 1, logits_mib: int = 64) -> Cost:
    """Two products of the cached states with a vector per round."""
    rounds = refinements + 1
    return Cost(flops=4 * rounds * shape.width, bytes=2 * rounds * BF16 * shape.width)


def _kept(shape: Shape, rounds: int) -> Cost:
    """Rounds on kept features: both sides' sums, 4 D; the midpoint subtracted and a product with a vector, 3 D."""
    return Cost(flops=7 * rounds * shape.width, bytes=(2 + 2 * rounds) * BF16 * shape.width)  # h read, v written, v read


def top_k(shape: Shape, refinements: int = 1, logits_mib: int = 64, k: int = 32) -> Cost:
    """One product; then k rows of the head per token: read, subtracted from the token's row, weighted and added."""
    kept, chunk = _kept(shape, refinements + 1), chunk_tokens(shape.vocabulary, logits_mib << 20)
    rows = k * shape.width
    traffic = 2 * FLOAT32 * shape.vocabulary + BF16 * shape.head / chunk + (BF16 + 2 * FLOAT32) * rows
    return Cost(flops=kept.flops + 2 * shape.head + 3 * rows, bytes=kept.bytes + traffic)


def hidden_gradient(shape: Shape, refinements: int = 1, logits_mib: int = 64) -> Cost:
    """Two products, the second with a float32 copy of the head."""
    kept, chunk = _kept(shape, refinements + 1), chunk_tokens(shape.vocabulary, logits_mib << 20)
    traffic = 2 * FLOAT32 * shape.vocabulary + (BF16 + FLOAT32) * shape.head / chunk
    return Cost(flops=kept.flops + 4 * shape.head, bytes=kept.bytes + traffic)


def head_gradient(shape: Shape, refinements: int = 1, logits_mib: int = 64) -> Cost:
    """One product for the normaliser, four per round."""
    rounds, rows = refinements + 1, block_rows(shape)
    blocks, budget = -(-shape.vocabulary // rows), logits_mib << 20
    whole, part = chunk_tokens(shape.vocabulary, budget), chunk_tokens(rows, budget)
    states = BF16 * shape.width
    normaliser = states + 2 * FLOAT32 * shape.vocabulary + BF16 * shape.head / whole
    # Per chunk of tokens and side: a float32 product is written, read, and added to float64 sums; a direction is rounded to
    # float32, which is then read. Per chunk, once in each of the two passes: the head's block.
    sums = 2 * (2 * FLOAT32 + 2 * FLOAT64)
    directions = 2 * (FLOAT64 + 2 * FLOAT32)
    matrices = (2 * BF16 + sums + directions) * shape.head / part
    logits = 3 * 2 * FLOAT32 * shape.vocabulary  # logits in both passes, and images in the second
    traffic = normaliser + rounds * (2 * blocks * states + logits + matrices)
    return Cost(flops=2 * shape.head * (1 + 4 * rounds), bytes=traffic)


def block_rows(shape: Shape) -> int:
    """Rows of the head in one of `HeadGradient`'s blocks: float64 sums of both sides fit the default."""
    return BLOCK_BYTES // (2 * FLOAT64 * shape.width)


PROXIES: dict[str, Callable[..., Cost]] = {
    "OutputRow": output_row, "TopKHiddenGradient, k = 32": top_k, "HiddenGradient": hidden_gradient,
    "HeadGradient": head_gradient,
}  # fmt: skip


def percent(value: float) -> str:
    """Two digits."""
    return f"{100 * value:.2g}" if value >= 1e-5 else "<0.001"


def by_shape(column: Callable[[Shape, int], list[str]], header: list[str]) -> str:
    """One row for each shape and length."""
    rows = [[shape.name, f"{length:,}", *column(shape, length)] for shape in SHAPES for length in LENGTHS]
    return markdown_table(["shape", "tokens per answer", *header], rows)


def step_table() -> str:
    def cells(shape: Shape, length: int) -> list[str]:
        step, attention = shape.step(length), 4 * shape.attention((length + 1) / 2)
        return [f"{step / 1e9:.1f}", percent(attention / step), f"{ANSWERS * length * step / 1e18:.2f}"]

    return by_shape(cells, ["step, GFLOP per token", "of it attention scores, %", f"step of {ANSWERS} answers, EFLOP"])


def share_table(logits_mib: int) -> str:
    def cells(shape: Shape, length: int) -> list[str]:
        costs = [proxy(shape, logits_mib=logits_mib) for proxy in PROXIES.values()]
        step = shape.step(length)
        return [f"{percent(cost.flops / step)} / {percent(cost.bytes * BALANCE / step)}" for cost in costs]

    return by_shape(cells, list(PROXIES))


def token_table() -> str:
    rows = []
    for shape in SHAPES:
        for name, proxy in PROXIES.items():
            small, large = proxy(shape), proxy(shape, logits_mib=1024)
            flops = [f"{proxy(shape, refinements=k).flops / 1e9:.3g}" for k in (0, 1, 2)]
            rows.append([shape.name, name, *flops, f"{small.bytes / 1e6:.3g}", f"{large.bytes / 1e6:.3g}"])
    header = ["shape", "proxy", "GFLOP, K = 0", "K = 1", "K = 2", "MB at 64 MiB of logits, K = 1", "MB at 1,024 MiB"]
    return markdown_table(header, rows)


def cache_table() -> str:
    def cells(shape: Shape, length: int) -> list[str]:
        numbers = ANSWERS * length / RANKS * shape.width
        return [f"{BF16 * numbers / 1e9:.1f}", f"{FLOAT32 * numbers / 1e9:.1f}"]

    return by_shape(cells, ["bf16, GB per rank", "float32, GB per rank"])


def matrix_table() -> str:
    rows = []
    for shape in SHAPES:
        block = block_rows(shape)
        blocks = -(-shape.vocabulary // block)
        gigabytes = [f"{size * shape.head / 1e9:.2f}" for size in (BF16, FLOAT32, 2 * FLOAT64)]
        rows.append([shape.name, *gigabytes, f"{block:,}", str(blocks), str(1 + 4 * blocks)])
    header = [
        "shape", "V x D in bf16, GB", "in float32, GB", "two in float64, GB", "rows of a block", "blocks",
        "readings of the cache, K = 1",
    ]  # fmt: skip
    return markdown_table(header, rows)


def verdicts() -> str:
    """Whether credit stays within 1 % of a step at 8B, by FLOPs and by bytes, at the shortest answers, its worst case."""
    shape, length = SHAPES[0], LENGTHS[0]
    rows = []
    for name, proxy in PROXIES.items():
        cost = proxy(shape)
        flops, traffic = cost.flops / shape.step(length), cost.bytes * BALANCE / shape.step(length)
        rows.append([name, percent(flops), percent(traffic), "yes" if max(flops, traffic) <= 0.01 else "no"])
    return markdown_table(["proxy", "FLOPs, % of the step", f"bytes x {BALANCE}, %", "at most 1 %"], rows)


PAGE = """# What credit costs, by count

Written by `python benchmarks/credit/count.py`. Nothing here was timed: these are FLOPs and bytes of `Delta` (K = 1 unless
said) with each proxy, beside a training step. `tests/credit/test_costs.py` holds the FLOPs against
`torch.utils.flop_counter` on small cases.

**At most 1 % of a step at the shape of an 8B model with answers of 4,096 tokens?** (Longer answers make the share smaller.)

{verdicts}
With the default proxy, yes. With any other, no: one product of the tokens with the LM head is already 1.9 % of this step.
For scale: three more forward passes, as the paper counts for its own procedure with K = 1, would be 75 % of it.

## What is counted

- The step: scoring under theta_old (one forward pass) and the update (forward, and twice that for backward), 8 FLOPs for
  each weight that multiplies, and attention scores over the tokens that a causal mask leaves. Left out: generation, prompts
  (every token is trained), recomputed activations, optimiser, communication, elementwise work. Each would make the step
  larger and credit's share smaller.
- Credit: products with the LM head (2 V D FLOPs each) and with vectors of width D; not elementwise work over the vocabulary
  (under 0.1 % of a product's FLOPs), nor some tens of operations per token for gates. `HiddenGradient` and `HeadGradient`
  compute part of their products in float32, which accelerators do more slowly than the step's bf16: FLOPs do not show it.
- Bytes, at least: each reading of the cache (bf16), logits or their like written once and read once per product, the head
  read once for each chunk of tokens, `HeadGradient`'s sums. Temporaries are not counted. The code's elementwise steps are
  not fused, so its traffic is several times larger than this.
- Bytes are set beside the step at {balance} FLOPs per byte, about an accelerator's dense bf16 peak over its memory bandwidth,
  and the step as if it ran at that peak. Chunks are those of a proxy's `logits_mib`: its default of 64 MiB holds 110 tokens
  at V = 151,936, so that reading the head costs more than the product. Raise it on a large model.

Shapes (layers, D, V, feed-forward, heads, key-value heads; heads of 128, untied, no biases): 8B 36, 4,096, 151,936, 12,288,
32, 8. 14B 40, 5,120, 151,936, 17,408, 40, 8. 70B 80, 8,192, 128,256, 28,672, 64, 8.

## The training step

{step}
## Share of the step

Percent: FLOPs / bytes x {balance}. With the default of 64 MiB of logits:

{small}
With `logits_mib: 1024`:

{large}
## Per token

{tokens}
## Memory

The cache of hidden states for {answers:,} answers, all of the stated length, over {ranks} ranks. `TopKHiddenGradient` and
`HiddenGradient` keep as much again.

{cache}
Matrices of the head's size. `HiddenGradient` holds one in float32 if the model is in bf16; `HeadGradient` holds blocks of two
in float64 (`block_mib: 512`), and reads the cache once for the normaliser and twice per block and round.

{matrix}"""


def main() -> None:
    text = PAGE.format(
        verdicts=verdicts(), step=step_table(), small=share_table(64), large=share_table(1024), tokens=token_table(),
        cache=cache_table(), matrix=matrix_table(), balance=BALANCE, answers=ANSWERS, ranks=RANKS,
    )  # fmt: skip
    Path(__file__).with_name("COSTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
