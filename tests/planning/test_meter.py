"""Live bytes, by hand."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from delta_lightning.planning.meter import LiveBytes


def test_storages_count_once_and_until_they_are_freed() -> None:
    with LiveBytes() as meter:
        first = torch.zeros(1000)
        view = first[10:].view(2, -1)
        assert meter.live == 4000
        del first
        assert meter.live == 4000  # the view holds it
        del view
        second = torch.zeros(500)
    assert (meter.live, meter.peak) == (2000, 4000)
    assert second.numel() == 500


def test_known_tensors_do_not_count_and_their_views_neither() -> None:
    weight = torch.zeros(100, 10)
    with LiveBytes([weight]) as meter:
        out = weight.T @ weight
    assert meter.live == out.numel() * 4


def test_a_restart_counts_the_next_peak() -> None:
    with LiveBytes() as meter:
        first = torch.zeros(1000)
        del first
        assert meter.restart() == 4000
        assert meter.peak == 0


def test_tensors_that_were_there_count_when_asked_and_go_when_they_are_freed() -> None:
    gradient = torch.zeros(250)
    with LiveBytes() as meter:
        meter.count([gradient])
        assert meter.live == 1000
        del gradient
        assert meter.live == 0


def test_the_meter_holds_nothing_that_is_known() -> None:
    weight = torch.zeros(100)
    with LiveBytes([weight]) as meter:
        del weight
        kept = torch.zeros(100)  # perhaps at the same address: it counts
        assert meter.live == 400
    assert kept.numel() == 100


def test_backward_passes_are_seen() -> None:
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes([x]) as meter:
        loss = (x * x).sin().sum()
        kept = meter.live
        loss.backward()
    assert kept == 4000 + 4  # the product, for the cosine; the sine is freed once it is summed
    assert meter.peak >= kept + 4000


def test_tensors_without_contents_count_alike() -> None:
    def run() -> int:
        with LiveBytes() as meter:
            value = torch.zeros(30, 40)
            (value @ value.T).exp()
        return meter.peak

    with FakeTensorMode():
        said = run()
    assert said == run()
