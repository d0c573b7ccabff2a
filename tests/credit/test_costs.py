"""The counts of benchmarks/credit/COSTS.md against `torch.utils.flop_counter`, which counts matrix products that run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.credit import count
from torch.utils.flop_counter import FlopCounterMode

from delta_lightning.credit.proxies import GradientProxy, HeadGradient, HiddenGradient, TopKHiddenGradient
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.delta import coefficients
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.worlds import VOCABULARY, WIDTH
from support.models import tiny_model
from support.proxies import warm

SMALL = count.Shape(name="tiny", layers=2, width=32, vocabulary=64, intermediate=64, heads=4, kv_heads=2, head_width=8)


def flops(work: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_forward_and_backward() -> None:
    model, tokens = tiny_model("qwen3"), 16
    model.set_attn_implementation("eager")  # which computes scores above the diagonal too
    ids = torch.arange(2, 2 + tokens)[None]
    expected = tokens * (2 * (SMALL.body + SMALL.head) + SMALL.attention(tokens))
    assert flops(lambda: model(input_ids=ids, use_cache=False)) == expected
    loss = model(input_ids=ids, use_cache=False).logits.sum()
    assert flops(loss.backward) == 2 * expected


@pytest.mark.parametrize("refinements", [0, 1, 2])
@pytest.mark.parametrize(
    ("proxy", "cost"),
    [(HiddenGradient(), count.hidden_gradient), (HeadGradient(), count.head_gradient)],
    ids=["hidden", "head"],
)
def test_products_with_the_head(proxy: GradientProxy, cost: Any, refinements: int) -> None:
    view = warm()
    mask_BT = view.batch.loss_mask_BT
    assert view.advantages is not None
    advantages_N = view.advantages[:, None].expand(mask_BT.shape)[mask_BT]
    advantages_N = torch.where(advantages_N == 0, 1.0, advantages_N)  # every token is on a side
    geometry = proxy.bind(TokenStream(view), Sides(advantages_N))
    shape = count.Shape(name="", layers=0, width=WIDTH, vocabulary=VOCABULARY, intermediate=0, heads=0, kv_heads=0)
    counted = flops(lambda: coefficients(geometry, refinements=refinements)) / len(advantages_N)
    vectors = (
        0 if isinstance(proxy, HeadGradient) else 3 * (refinements + 1) * WIDTH
    )  # not matrices: the counter leaves them out
    assert counted == cost(shape, refinements).flops - vectors


def test_top_k_costs_one_product_and_k_rows() -> None:
    view = warm()
    mask_BT = view.batch.loss_mask_BT
    tokens = int(mask_BT.sum())
    geometry = TopKHiddenGradient(k=3).bind(TokenStream(view), Sides(torch.ones(tokens)))
    once = flops(lambda: geometry.margins(torch.ones(2, tokens, dtype=torch.float64)))
    assert once == tokens * (2 * VOCABULARY * WIDTH + 2 * 3 * WIDTH + 4 * WIDTH)


def test_the_page_is_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(count.__file__).with_name("COSTS.md").read_text(encoding="utf-8")
    monkeypatch.setattr(count, "__file__", str(tmp_path / "count.py"))
    count.main()
    assert (tmp_path / "COSTS.md").read_text(encoding="utf-8") == page


def test_by_hand() -> None:
    shape = count.SHAPES[0]
    per_layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288
    assert shape.body == 36 * per_layer and shape.head == 622_329_856
    assert shape.attention(1) == 36 * 4 * 4096
    assert count.head_gradient(shape).flops == 9 * 2 * 622_329_856
    assert count.output_row(shape).bytes == 4 * 2 * 4096
