"""Main memory of each rank while a model is loaded and sharded, and while its weights go to a sampler and into a checkpoint.

Ranks are processes on this machine (gloo). Every phase runs in a fresh world, since a process's peak never falls. Run it with
MALLOC_MMAP_THRESHOLD_=65536, so that memory that was freed is not counted as held.

    MALLOC_MMAP_THRESHOLD_=65536 python benchmarks/sharding/loading.py --ranks 4 --layers 16 --width 768
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from support.world import run_ranks

PHASES = ("load whole", "place", "place and hand over weights", "place and save parts", "place and gather the export")


def memory(field: str) -> float:
    """VmHWM (peak) or VmRSS of this process, MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def make(folder: Path, *, layers: int, width: int) -> int:
    """A Qwen3 with random float32 weights; its number of parameters."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from delta_lightning.models.tokenizer import byte_tokenizer

    config = Qwen3Config(
        vocab_size=32_000, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, head_dim=64, tie_word_embeddings=False,
        max_position_embeddings=1024, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(phase: str, folder: str) -> dict[str, float]:
    """Peak above what the process takes with everything imported, MiB."""
    import lightning.pytorch  # noqa: F401 -- before the first look at memory
    import torch.distributed.checkpoint as dcp
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    from delta_lightning.models import LoadContext, Pretrained
    from delta_lightning.models.sharding import full
    from delta_lightning.trainer.ranks import Ranks
    from support.sharded import cut

    def load() -> Any:
        return Pretrained(path=folder).load(LoadContext())

    torch.set_num_threads(1)
    before = memory("VmRSS")
    model = load() if phase == "load whole" else cut(load)
    if phase == "place and hand over weights":
        for parameter in model.parameters():
            full(parameter)
    elif phase == "place and save parts":
        with tempfile.TemporaryDirectory() as place:
            dcp.save({"model": model.state_dict()}, checkpoint_id=Ranks.current().all_objects(place)[0])
    elif phase == "place and gather the export":
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        assert bool(get_model_state_dict(model, options=options)) == (Ranks.current().rank == 0)
    return {"peak_mib": memory("VmHWM") - before, "held_mib": memory("VmRSS") - before}


def main() -> None:
    """Print a table, and write it as JSON beside this file."""
    parser = argparse.ArgumentParser()
    for name, value in (("ranks", 2), ("layers", 16), ("width", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parameters = make(Path(folder), layers=options.layers, width=options.width)
        weights = 4 * parameters / 2**20
        print(f"{parameters / 1e6:.0f} M parameters, {weights:.0f} MiB in float32, {options.ranks} ranks")
        results = {}
        for phase in PHASES:
            results[phase] = run_ranks(options.ranks, measure, phase, folder)
            cells = "  ".join(f"rank {rank}: peak {one['peak_mib'] / weights:.2f}" for rank, one in enumerate(results[phase]))
            print(f"{phase:30} {cells}  (in whole models)", flush=True)
    found = {
        "parameters": parameters, "weights_mib": weights, "ranks": options.ranks, "phases": results, "torch": torch.__version__,
        "machine": platform.machine(),
    }  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
