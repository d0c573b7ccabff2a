"""Liger's kernels: refused where they cannot work, only those that keep the credit of tokens, and equal on a GPU."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.models import Pretrained, liger
from delta_lightning.models.probe import sequence_logprobs
from support.models import tiny_model

ARCHITECTURES = Path(__file__).parents[2] / "configs" / "models"


def backbone(architecture: str = "Qwen3-8B-Base") -> Pretrained:
    return Pretrained(path="some/model", kernels="liger", architecture=str(ARCHITECTURES / f"{architecture}.json"))


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: ModuleSpec(name, None) if name in names else None)


def test_is_refused_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "liger_kernel")
    with pytest.raises(ConfigError, match=r"got no triton.*delta-lightning\[liger\]"):
        backbone().check()


def test_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "liger_kernel", "triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="wanted a GPU"):
        backbone("Olmo-3-1025-7B").check()


def test_other_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "liger_kernel", "triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backbone().check()
    with pytest.raises(ConfigError, match="wanted a model of type qwen3 or olmo3, got 'llama'"):
        liger.check_liger("llama")


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_its_losses_are_never_asked_for(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the library, which cannot be imported without a GPU, notes what it is asked."""
    installed(monkeypatch, "liger_kernel", "triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: list[dict[str, Any]] = []
    library = ModuleType("liger_kernel.transformers")
    library.monkey_patch = ModuleType("monkey_patch")  # type: ignore[attr-defined]
    setattr(library.monkey_patch, f"apply_liger_kernel_to_{family}", lambda **options: asked.append(options))
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", library)
    model = tiny_model(family)
    backbone().use_kernels(model)
    [options] = asked
    assert options.pop("model") is model
    assert {name for name, wanted in options.items() if wanted} == {"rope", "rms_norm", "swiglu"}
    assert {name for name, wanted in options.items() if not wanted} == {"cross_entropy", "fused_linear_cross_entropy"}


def test_other_kernels_stay() -> None:
    model = tiny_model()
    before = sequence_logprobs(model, [[3, 4, 5]])
    Pretrained(path="some/model").use_kernels(model)
    assert torch.equal(sequence_logprobs(model, [[3, 4, 5]])[0], before[0])


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_log_probabilities_and_gradients_stay(family: str) -> None:
    """Not run yet: needs a GPU and liger-kernel."""
    pytest.importorskip("liger_kernel")
    import transformers.models.olmo3.modeling_olmo3 as olmo3
    import transformers.models.qwen3.modeling_qwen3 as qwen3

    shape = {"hidden_size": 128, "intermediate_size": 256}
    plain, fused = (tiny_model(family, **shape).cuda() for _ in range(2))
    ids = torch.arange(2, 34, device="cuda")[None]
    with pytest.MonkeyPatch.context() as patch:
        for library in (qwen3, olmo3):  # so that what is put there is taken away again
            for name in ("apply_rotary_pos_emb", "Qwen3RMSNorm", "Qwen3MLP", "Olmo3RMSNorm", "Olmo3MLP"):
                if hasattr(library, name):
                    patch.setattr(library, name, getattr(library, name))
        want = torch.log_softmax(plain(ids).logits, -1).square().sum()
        want.backward()
        liger.use_liger(fused)
        got = torch.log_softmax(fused(ids).logits, -1).square().sum()
        got.backward()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=0)
    for (name, one), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        scale = float(other.grad.abs().max())
        assert float((one.grad - other.grad).abs().max()) < 1e-3 * scale, name
