"""The plug-in as vLLM finds it: light, harmless, and its names lead to classes."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import delta_lightning.samplers.vllm_plugin as plugin
from delta_lightning.samplers.servers.transfers import FolderTransfer, HTTPTransfer, NCCLTransfer


@pytest.mark.vllm
def test_the_entry_point_is_installed() -> None:
    [found] = [point for point in entry_points(group="vllm.general_plugins") if point.name == "delta_lightning"]
    assert found.load() is plugin.register


def test_it_imports_nothing_heavy_into_every_vllm_process() -> None:
    code = "import sys, torch; import delta_lightning.samplers.vllm_plugin; print(*sorted(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    heavy = {"lightning", "jsonargparse", "transformers", "datasets", "math_verify", "matplotlib", "tensorboard", "vllm"}
    assert "delta_lightning.samplers.vllm_plugin" in loaded and not loaded & heavy


def test_transfers_and_the_plugin_speak_of_the_same_names() -> None:
    names = [HTTPTransfer().backend(), FolderTransfer(path="x").backend(), NCCLTransfer().backend()]
    assert set(names) == set(plugin._ENGINES) and len(set(names)) == 3


@pytest.mark.vllm
def test_vllm_knows_the_names_and_its_own_stay() -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferEngine
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory as Factory

    own = {name: engine for name, engine in Factory._registry.items() if not name.startswith("delta_lightning")}
    plugin.register()
    plugin.register()
    assert own.items() <= Factory._registry.items() and "nccl" in own
    for name in plugin._ENGINES:
        assert issubclass(Factory._registry[name](), WeightTransferEngine)


@pytest.mark.vllm
def test_vllm_s_command_line_finds_the_worker_extension_and_the_logits_processor() -> None:
    from vllm.utils.import_utils import resolve_obj_by_qualname
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.worker.cpu_worker import CPUWorker

    extension = resolve_obj_by_qualname(plugin.EXTENSION)
    ours = {name for name in vars(extension) if not name.startswith("__")}
    assert {"delta_describe", "delta_receipt", "delta_take_mass", "delta_forget_mass"} <= ours
    assert not [name for name in ours if hasattr(CPUWorker, name)], "vLLM refuses an extension that shadows"
    module, _, name = plugin.CUTS.partition(":")
    assert issubclass(resolve_obj_by_qualname(f"{module}.{name}"), LogitsProcessor)
