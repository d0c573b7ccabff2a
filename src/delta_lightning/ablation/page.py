"""A few answers with every token coloured by its credit, as one HTML file without scripts: people look rather than read."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from delta_lightning.ablation.replay import Replay
from delta_lightning.ablation.summary import Sizes
from delta_lightning.functional.agreement import quantiles
from delta_lightning.types import RolloutBatch

SIDES = {1: "positive", -1: "negative"}  # by sign of A
STRONGEST = 0.98  # quantile of the distance from the assigner's mean at which the colour is full
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
body { color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-size: .85rem; margin: .9rem 0 .2rem; color: #555; font-weight: 600; }
.answer, .prompt { font-family: ui-monospace, monospace; white-space: pre-wrap; word-break: break-word; }
.prompt { color: #555; }
.answer { line-height: 1.9; } .answer span { padding: 2px 0; } .key span { padding: 1px .6em; }
"""


Scale = tuple[float, float]  # mean, and the distance from it at which the colour is full
NO_SCALE: Scale = (0.0, 0.0)  # of tokens with A = 0, beside others that an estimator gives an advantage: white


def answers_page(
    replayed: Replay, batch: RolloutBatch, *, sizes: Sizes, strings: Callable[[int], str], decode: Callable[[list[int]], str]
) -> str:
    """The HTML page.

    Blue tokens have more than the assigner's mean coefficient over the tokens of their side (A > 0 or A < 0), red ones less,
    white ones the mean: what an assigner gives to a whole side stands in numbers above the answer and hides no token. Each
    assigner and side has its own scale, so that a narrow range can be seen too. Hovering over a token shows its coefficient
    and its probability under theta_old. Of a long answer the start is shown: every token is there once per assigner.

    Args:
        replayed: tokens and coefficients. batch: the rows of all ranks. sizes: how many answers, and how much of each.
        strings: token id -> text. decode: token ids -> text, for prompts.
    """
    chosen = choose(replayed, batch, sizes.answers)
    scales = {
        label: {sign: _scale(values_N[replayed.side(side)]) for sign, side in SIDES.items()}
        for label, values_N in replayed.coefficients.items()
    }
    parts = [_answer(replayed, batch, row, scales, sizes.answer_tokens, strings, decode) for row in chosen]
    key = "".join(f'<span style="{_colour(x)}">{text}</span>' for x, text in ((-1, "less"), (0, "mean"), (1, "more")))
    body = "\n".join(parts) or "<p>No answer has an advantage other than 0: there is nothing to credit.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Token credit</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Token credit on the same answers</h1>"
        f'<p class="key">{key} than the mean coefficient that the assigner gives to tokens of this sign of A; each '
        f"assigner and sign has its own scale. Hover over a token for its numbers.</p>\n{body}\n</body></html>\n"
    )


def choose(replayed: Replay, batch: RolloutBatch, answers: int) -> list[int]:
    """Rows to show: as many with A > 0 as with A < 0 where there are enough, alternating, in the order of sequence ids.

    With an advantage per token, the first that is not 0 counts.
    """
    row_of = {sequence: row for row, sequence in enumerate(batch.sequence_ids_B.tolist())}
    signal_N = replayed.side("signal")
    advantage_M = replayed.advantage_N[signal_N]
    ids_U, inverse_M = torch.unique(replayed.sequence_N[signal_N], return_inverse=True)
    places_M = torch.arange(len(inverse_M))
    first_U = torch.zeros_like(ids_U).scatter_reduce(0, inverse_M, places_M, reduce="amin", include_self=False)
    positive_U = advantage_M[first_U] > 0
    good, bad = ([row_of[one] for one in ids_U[side_U].tolist()] for side_U in (positive_U, ~positive_U))
    half = max(answers - len(bad), (answers + 1) // 2)
    good, bad = good[:half], bad[: answers - len(good[:half])]
    mixed = [row for pair in zip(good, bad, strict=False) for row in pair]
    return mixed + good[len(bad) :] + bad[len(good) :]


def _answer(
    replayed: Replay,
    batch: RolloutBatch,
    row: int,
    scales: Mapping[str, Mapping[int, Scale]],
    limit: int,
    strings: Callable[[int], str],
    decode: Callable[[list[int]], str],
) -> str:
    sequence = int(batch.sequence_ids_B[row])
    all_n = (replayed.sequence_N == sequence).nonzero()[:, 0]
    here_n, more = all_n[:limit], len(all_n[limit:])
    advantages = replayed.advantage_N[all_n]
    low, high = float(advantages.min()), float(advantages.max())
    advantage = f"advantage {low:+.3f}" if low == high else f"advantages from {low:+.3f} to {high:+.3f}"
    prompt = decode(batch.token_ids_BT[row, : int(batch.prompt_lengths_B[row])].tolist())
    parts = [
        f"<h2>Answer {sequence}: reward {float(batch.rewards_B[row]):g}, {advantage}</h2>",
        f'<div class="prompt">{html.escape(prompt)}</div>',
    ]
    tokens, logprobs_n = replayed.token_N[here_n].tolist(), replayed.logprob_N[here_n].tolist()
    signs_n = [int(sign) for sign in replayed.advantage_N[here_n].sign().tolist()]
    rest = f"<em> … and {more} more tokens</em>" if more else ""
    for label, values_N in replayed.coefficients.items():
        scale = scales[label]
        spans = [
            _span(strings(token), value, logprob, _strength(value, scale.get(sign, NO_SCALE)))
            for token, value, logprob, sign in zip(tokens, values_N[here_n].tolist(), logprobs_n, signs_n, strict=True)
        ]
        about = "; ".join(_about(scale[sign], sign, alone=low * high > 0) for sign in SIDES if sign in signs_n)
        parts.append(f'<h3>{html.escape(f"{label} ({about})")}</h3><div class="answer">{"".join(spans)}{rest}</div>')
    return "\n".join(parts)


def _about(scale: Scale, sign: int, *, alone: bool) -> str:
    mean, spread = scale
    side = "" if alone else f"A {'>' if sign > 0 else '<'} 0: "
    return side + (f"mean {mean:.3f}, full colour at ±{spread:.3g}" if spread else f"{mean:.3f} everywhere")


def _strength(value: float, scale: Scale) -> float:
    mean, spread = scale
    return (value - mean) / spread if spread else 0.0


def _span(text: str, value: float, logprob: float, strength: float) -> str:
    title = html.escape(f"{text!r}  coefficient {value:.4g}  p {math.exp(logprob):.3f}", quote=True)
    return f'<span style="{_colour(strength)}" title="{title}">{html.escape(text)}</span>'


def _scale(values_N: Tensor) -> Scale:
    """Mean, and the distance from it that has the full colour; 0 if all values are (but for rounding) the same."""
    if not len(values_N):
        return 0.0, 0.0
    mean = float(values_N.mean())
    [spread] = quantiles((values_N - mean).abs(), (STRONGEST,))
    spread = spread or float((values_N - mean).abs().max())
    return mean, spread if spread > 1e-6 * max(1.0, abs(mean)) else 0.0


def _colour(strength: float) -> str:
    """White at 0, blue above, red below, full at 1 and beyond."""
    share = max(-1.0, min(1.0, strength))
    red, green, blue = (66, 133, 244) if share > 0 else (234, 82, 60)
    mix = [round(255 + (channel - 255) * abs(share)) for channel in (red, green, blue)]
    return f"background:#{mix[0]:02x}{mix[1]:02x}{mix[2]:02x}"


def token_strings(tokenizer: object, ids: Sequence[int]) -> dict[int, str]:
    """What each token id is as text; a part of a character, which is no text by itself, is given as the tokenizer names it."""
    found: dict[int, str] = {}
    for token in ids:
        text = str(tokenizer.decode([token], skip_special_tokens=False))  # type: ignore[attr-defined]
        broken = not text or "\ufffd" in text
        found[token] = str(tokenizer.convert_ids_to_tokens(token)) if broken else text  # type: ignore[attr-defined]
    return found
