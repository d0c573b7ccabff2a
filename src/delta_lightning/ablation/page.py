"""A few answers with every token coloured by its credit, as one HTML file without scripts: people look rather than read."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from delta_lightning.ablation.replay import Replay
from delta_lightning.functional.agreement import quantiles
from delta_lightning.types import RolloutBatch

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


def answers_page(
    replayed: Replay, batch: RolloutBatch, *, answers: int, strings: Callable[[int], str], decode: Callable[[list[int]], str]
) -> str:
    """The HTML page.

    Blue tokens have more than the assigner's mean coefficient over the tokens of their side (A > 0 or A < 0), red ones less,
    white ones the mean: what an assigner gives to a whole side stands in numbers above the answer and hides no token. Each
    assigner and side has its own scale, so that a narrow range can be seen too. Hovering over a token shows its coefficient
    and its probability under theta_old.

    Args:
        replayed: tokens and coefficients. batch: the rows of all ranks. answers: how many are shown.
        strings: token id -> text. decode: token ids -> text, for prompts.
    """
    chosen = choose(replayed, batch, answers)
    scales = {
        side: {label: _scale(values_N[replayed.side(side)]) for label, values_N in replayed.coefficients.items()}
        for side in ("positive", "negative")
    }
    parts = [_answer(replayed, batch, row, scales, strings, decode) for row in chosen]
    key = "".join(f'<span style="{_colour(x)}">{text}</span>' for x, text in ((-1, "less"), (0, "mean"), (1, "more")))
    body = "\n".join(parts) or "<p>No answer has an advantage other than 0: there is nothing to credit.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Token credit</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Token credit on the same answers</h1>"
        f'<p class="key">{key} than the mean coefficient that the assigner gives to answers of this sign of A; each '
        f"assigner and sign has its own scale. Hover over a token for its numbers.</p>\n{body}\n</body></html>\n"
    )


def choose(replayed: Replay, batch: RolloutBatch, answers: int) -> list[int]:
    """Rows to show: as many with A > 0 as with A < 0 where there are enough, alternating, in the order of sequence ids."""
    row_of = {sequence: row for row, sequence in enumerate(batch.sequence_ids_B.tolist())}
    found: dict[bool, list[int]] = {True: [], False: []}
    seen: set[int] = set()
    for sequence, advantage in zip(replayed.sequence_N.tolist(), replayed.advantage_N.tolist(), strict=True):
        if advantage != 0 and sequence not in seen:
            seen.add(sequence)
            found[advantage > 0].append(row_of[sequence])
    good, bad = found[True], found[False]
    half = max(answers - len(bad), (answers + 1) // 2)
    good, bad = good[:half], bad[: answers - len(good[:half])]
    mixed = [row for pair in zip(good, bad, strict=False) for row in pair]
    return mixed + good[len(bad) :] + bad[len(good) :]


def _answer(
    replayed: Replay,
    batch: RolloutBatch,
    row: int,
    scales: dict[str, dict[str, tuple[float, float]]],
    strings: Callable[[int], str],
    decode: Callable[[list[int]], str],
) -> str:
    sequence = int(batch.sequence_ids_B[row])
    here_N = replayed.sequence_N == sequence
    advantage = float(replayed.advantage_N[here_N][0])
    first = int(batch.prompt_lengths_B[row])
    reward = float(batch.rewards_B[row])
    parts = [
        f"<h2>Answer {sequence}: reward {reward:g}, advantage {advantage:+.3f}</h2>",
        f'<div class="prompt">{html.escape(decode(batch.token_ids_BT[row, :first].tolist()))}</div>',
    ]
    tokens, logprobs_n = replayed.token_N[here_N].tolist(), replayed.logprob_N[here_N].tolist()
    for label, values_N in replayed.coefficients.items():
        mean, spread = scales["positive" if advantage > 0 else "negative"][label]
        spans = [
            _span(strings(token), value, logprob, (value - mean) / spread if spread else 0.0)
            for token, value, logprob in zip(tokens, values_N[here_N].tolist(), logprobs_n, strict=True)
        ]
        about = f"mean {mean:.3f}, full colour at ±{spread:.3g}" if spread else f"{mean:.3f} everywhere"
        parts.append(f'<h3>{html.escape(label)} ({about})</h3><div class="answer">{"".join(spans)}</div>')
    return "\n".join(parts)


def _span(text: str, value: float, logprob: float, strength: float) -> str:
    title = html.escape(f"{text!r}  coefficient {value:.4g}  p {torch.tensor(logprob).exp().item():.3f}", quote=True)
    return f'<span style="{_colour(strength)}" title="{title}">{html.escape(text)}</span>'


def _scale(values_N: Tensor) -> tuple[float, float]:
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
