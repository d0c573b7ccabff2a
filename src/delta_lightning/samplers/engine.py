"""Continuous batching: rows decode together, leave when they end, and waiting prompts take their places."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.functional.logprobs import chunk_tokens, head_logits
from delta_lightning.functional.random import keyed_uniform
from delta_lightning.functional.sampling import draw, warp_logits
from delta_lightning.samplers.decoding import prompt_cache, reads_pieces, segmented_cache
from delta_lightning.samplers.rows import Row, Waiting
from delta_lightning.samplers.segments import Part, Segment, room_for
from delta_lightning.samplers.stopping import Bans, StopRules
from delta_lightning.types import Completion, SamplingParams

HEAD_BUDGET = 1 << 28  # bytes of float32 logits that exist at a time
PREFILL_TOKENS = 1 << 14  # of one forward pass over prompts, padding included
ADMIT_SHARE = 1 / 8  # of the rows that must be free before prompts are prefilled for them
COMPACT_BELOW = 7 / 8  # finished rows leave a segment once this share is left: leaving copies its keys and values
MAX_SEGMENTS = 4  # a layer's attention is called for each


@dataclass(eq=False)
class Lane:
    """A segment with its rows; a row that has ended stays until the segment is copied."""

    segment: Segment
    rows: list[Row]
    running: list[bool]

    def kept(self) -> list[int]:
        """Places of the rows that have not ended."""
        return [place for place, running in enumerate(self.running) if running]

    def part(self) -> Part:
        """Keys and values of the rows that have not ended."""
        return self.segment.part(self.kept())

    def columns(self) -> int:
        """Rows times columns after a copy."""
        kept = self.kept()
        return len(kept) * room_for(max((self.segment.lengths[place] for place in kept), default=0))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most rows that decode together, and most bytes of their keys and values; one row is decoded in any case."""

    rows: int
    cache_bytes: int


class Engine:
    """Completes waiting rows with one model on one device.

    Rows are cut into segments of similar length, so that a short row does not attend over the columns of a long one. Where the
    memory for keys and values is spent, the row with the fewest tokens waits again; its tokens are kept and prefilled later.
    """

    def __init__(
        self, model: Any, tokenizer: Any, params: SamplingParams, *, stops: StopRules, bans: Bans, limits: Limits, version: int
    ) -> None:
        self.model, self.tokenizer, self.params, self.version = model, tokenizer, params, version
        self.stops, self.bans, self.limits = stops, bans, limits
        self.weight_VD = model.lm_head.weight
        self.device = self.weight_VD.device
        self.pieces = False
        self.layers = int(model.config.num_hidden_layers)
        self.waiting: deque[Waiting] = deque()
        self.lanes: list[Lane] = []
        self.inputs: tuple[Tensor, ...] | None = None  # tokens, positions, keys and counters of the rows; None: make them anew
        self.column_bytes = 0  # of one row and column, all layers; known after the first prefill
        self.counts = {"steps": 0, "row_steps": 0, "prefilled": 0, "requeued": 0}

    def run(self, waiting: Sequence[Waiting]) -> Iterator[list[Completion]]:
        """Completions as they end, one list, perhaps empty, for each position that was decoded."""
        self.waiting, self.pieces = deque(waiting), reads_pieces(self.model)
        while self.waiting or self.lanes:
            hidden = [self._decode()] if self.lanes else []
            hidden += self._admit()
            yield self._extend(torch.cat(hidden) if len(hidden) > 1 else hidden[0])
            self._leave()

    # Forward passes --------------------------------------------------------------------------------------------------

    def _decode(self) -> Tensor:
        """The states that predict each row's next token, [rows, D]."""
        self._make_room()
        rows = [row for lane in self.lanes for row in lane.rows]
        segments = [lane.segment for lane in self.lanes]
        for segment in segments:
            segment.advance()
        if self.inputs is None:
            self.inputs = (
                torch.tensor([row.tokens[-1] for row in rows], device=self.device),
                torch.tensor([row.length - 1 for row in rows], device=self.device),
            )
        tokens_B, positions_B = self.inputs
        mask = tokens_B.new_ones(len(rows), 1, 1, 1, dtype=torch.bool) if self.pieces else segments[0].attend()
        self.counts["steps"] += 1
        self.counts["row_steps"] += len(rows)
        return self._forward(
            tokens_B[:, None], mask, positions_B[:, None], segmented_cache(self.layers, segments, pieces=self.pieces)
        )

    def _prefill(self, entries: Sequence[Waiting]) -> tuple[Tensor, Part]:
        """One forward pass over entries of as many rows each, left-padded; states repeated for each row."""
        lengths = [len(entry.token_ids) for entry in entries]
        longest, repeats = max(lengths), len(entries[0].rows)
        ids = torch.zeros(len(entries), longest, dtype=torch.int64)
        for place, entry in enumerate(entries):
            ids[place, longest - lengths[place] :] = torch.tensor(entry.token_ids)
        mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
        cache = prompt_cache(self.layers)
        positions = (mask.cumsum(1) - 1).clamp(min=0).to(self.device)
        hidden = self._forward(ids.to(self.device), mask.to(self.device), positions, cache)
        keys, values = [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers]
        self.column_bytes = sum(t.shape[1] * t.shape[3] * t.element_size() for t in (*keys, *values))
        self.counts["prefilled"] += ids.numel()
        return hidden.repeat_interleave(repeats, 0), Part(keys, values, lengths, repeats)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        out = self.model.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    # Rows come and go ------------------------------------------------------------------------------------------------

    def _admit(self) -> list[Tensor]:
        """Prefills what there is room for; the states that predict its first tokens."""
        entries = self._admissible()
        if not entries:
            return []
        states, parts = [], []
        for _, alike in groupby(entries, key=lambda entry: len(entry.rows)):
            for chunk in _chunks(list(alike)):
                hidden, part = self._prefill(chunk)
                states.append(hidden)
                parts.append(part)
        rows = [row for entry in entries for row in entry.rows]
        if self.pieces or not self.lanes:
            self.lanes.append(Lane(Segment.joined(parts), rows, [True] * len(rows)))
        else:  # one segment only: the new rows are aligned with the old ones
            [lane] = self.lanes
            joined = Segment.joined([lane.segment.part(), *parts])
            self.lanes = [Lane(joined, lane.rows + rows, lane.running + [True] * len(rows))]
        self.inputs = None
        return states

    def _admissible(self) -> list[Waiting]:
        """What may start now: enough rows are free to be worth a prefill, and their keys and values fit."""
        if not self.waiting:
            return []
        running = sum(len(lane.kept()) for lane in self.lanes)
        if running and self.limits.rows - running < self.limits.rows * ADMIT_SHARE:
            return []
        columns = self._columns()
        taken: list[Waiting] = []
        rows, longest = 0, 0 if self.pieces or not self.lanes else self.lanes[0].segment.span  # a single segment is shared
        while self.waiting:
            entry = self.waiting[0]
            rows, longest = rows + len(entry.rows), max(longest, len(entry.token_ids))
            if running + rows > self.limits.rows or (columns + rows * room_for(longest)) > self._most_columns():
                break
            taken.append(self.waiting.popleft())
        if not taken and not running:  # a group larger than the limits starts in parts
            entry = self.waiting.popleft()
            count = max(1, min(len(entry.rows), self.limits.rows, self._most_columns() // room_for(len(entry.token_ids))))
            taken.append(Waiting(entry.rows[:count]))
            if entry.rows[count:]:
                self.waiting.appendleft(Waiting(entry.rows[count:]))
        return taken

    def _columns(self) -> int:
        """Rows times columns of all segments after a copy."""
        return sum(lane.columns() for lane in self.lanes)

    def _most_columns(self) -> int:
        if not self.column_bytes:
            config = self.model.config
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            self.column_bytes = 2 * self.layers * heads * width * self.weight_VD.element_size()
        return self.limits.cache_bytes // self.column_bytes

    def _make_room(self) -> None:
        """Gives every segment that is full new columns. Rows wait again where the memory does not allow that."""
        full = [lane for lane in self.lanes if lane.segment.end == lane.segment.capacity]
        used = sum(lane.segment.size * lane.segment.capacity for lane in self.lanes)  # joining segments may have used more
        while (full or used > self._most_columns()) and self._columns() > self._most_columns():
            running = [(len(lane.rows[place].tokens), lane, place) for lane in self.lanes for place in lane.kept()]
            if len(running) == 1:
                break
            _, lane, place = min(running, key=lambda one: one[0])
            lane.running[place] = False
            self.waiting.appendleft(Waiting((lane.rows[place],)))
            self.counts["requeued"] += 1
            full = self.lanes  # all are copied: what waits again must free its memory
        for lane in list(full):
            self._copy(lane)
        self.lanes = [lane for lane in self.lanes if lane.rows]

    def _leave(self) -> None:
        """Rows that have ended leave a segment when there are enough of them; segments that are too many are joined."""
        for lane in self.lanes:
            if len(lane.kept()) <= COMPACT_BELOW * len(lane.rows):
                self._copy(lane)
        self.lanes = [lane for lane in self.lanes if lane.rows]
        while len(self.lanes) > MAX_SEGMENTS:
            by_span = sorted(self.lanes, key=lambda lane: lane.segment.span)
            short, long = min(pairwise(by_span), key=lambda two: len(two[0].rows) * (two[1].segment.span - two[0].segment.span))
            kept = [lane for lane in self.lanes if lane is not short and lane is not long]
            rows = [lane.rows[place] for lane in (short, long) for place in lane.kept()]
            self.lanes = [*kept, Lane(Segment.joined([short.part(), long.part()]), rows, [True] * len(rows))]
            self.inputs = None

    def _copy(self, lane: Lane) -> None:
        """Only the rows that run, with room to grow."""
        kept = lane.kept()
        if kept:
            lane.segment = Segment.joined([lane.part()])
        lane.rows, lane.running = [lane.rows[place] for place in kept], [True] * len(kept)
        self.inputs = None

    # Draws -----------------------------------------------------------------------------------------------------------

    def _extend(self, hidden_BD: Tensor) -> list[Completion]:
        """Draws every running row's next token; the completions that it ends."""
        rows = [row for lane in self.lanes for row in lane.rows]
        chosen, sampled, raw = self._draw(hidden_BD, rows)
        done, place = [], 0
        for lane in self.lanes:
            for index, row in enumerate(lane.rows):
                if lane.running[index]:
                    if raw[place] != raw[place]:  # one bad logit spoils the whole row of a softmax
                        raise RunError(f"the model's logits are not finite at token {len(row.tokens)} of a completion; "
                                       "its weights may have diverged")  # fmt: skip
                    row.tokens.append(int(chosen[place]))
                    row.logprobs.append(sampled[place])
                    row.raw_logprobs.append(raw[place])
                    stopped = self.stops.ended(row.tokens)
                    if stopped or len(row.tokens) >= row.limit:
                        lane.running[index] = False
                        done.append(row.completion(self.tokenizer, stopped=stopped, version=self.version))
                place += 1
        return done

    def _draw(self, hidden_BD: Tensor, rows: Sequence[Row]) -> list[list[float]]:
        """Next tokens, their log-probabilities as sampled, and with temperature only."""
        keys_B = torch.tensor([row.key for row in rows], device=self.device)
        counters_B = torch.tensor([len(row.tokens) for row in rows], device=self.device)
        noise_B = keyed_uniform(keys_B, counters_B[:, None])[:, 0]
        results = []
        chunk = chunk_tokens(self.weight_VD.shape[0], HEAD_BUDGET)
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            raw = torch.log_softmax(head_logits(hidden_BD[part], self.weight_VD, self.params.temperature), -1)
            allowed = self.bans.mask(raw, [row.tokens for row in rows[part]])
            cut = warp_logits(allowed, top_p=self.params.top_p, top_k=self.params.top_k, min_p=self.params.min_p)
            warped = torch.log_softmax(cut, -1) if cut is allowed and allowed is not raw else cut
            tokens = draw(warped, noise_B[part])
            logprobs = [values.gather(1, tokens[:, None])[:, 0].double() for values in (warped, raw)]
            results.append(torch.stack([tokens.double(), *logprobs]))
        values: list[list[float]] = torch.cat(results, 1).tolist()
        if self.inputs is not None:
            self.inputs = (torch.cat([one[0] for one in results]).long(), self.inputs[1] + 1)
        return values


def _chunks(entries: list[Waiting]) -> Iterator[list[Waiting]]:
    """Entries whose prompts are prefilled together: few enough tokens, padding included."""
    chunk: list[Waiting] = []
    longest = 0
    for entry in entries:
        longest = max(longest, len(entry.token_ids))
        if chunk and (len(chunk) + 1) * longest > PREFILL_TOKENS:
            yield chunk
            chunk, longest = [], len(entry.token_ids)
        chunk.append(entry)
    yield chunk
