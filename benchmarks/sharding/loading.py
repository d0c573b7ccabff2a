"""Main memory of each rank while a model is loaded and sharded, and while its weights go to a sampler, a checkpoint, an export.

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

WHOLE, FROM_RANK_0 = "every rank loads the whole model", "rank 0 loads it, ranks get shards"
FROM_FILES, CHECKED = "ranks read their rows", "and its head is checked by a forward pass"
HANDED, SAVED = "and every parameter goes to a sampler", "and each rank writes its part of a checkpoint"
GATHERED, EXPORTED = "and rank 0 gathers it for an export", "and rank 0 writes it file by file"
PHASES = (WHOLE, FROM_RANK_0, FROM_FILES, CHECKED, HANDED, SAVED, GATHERED, EXPORTED)  # from CHECKED on, after FROM_FILES


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


def measure(phase: str, folder: str, file_mib: int) -> dict[str, float]:
    """Peak above what the process takes with everything imported, MiB."""
    import lightning.pytorch  # noqa: F401 -- before the first look at memory
    import torch.distributed.checkpoint as dcp
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh

    from delta_lightning.models import LoadContext, Pretrained
    from delta_lightning.models.export import gathered_weights, write_model
    from delta_lightning.models.sharding import Sharding, full
    from delta_lightning.models.spreading import spread_files
    from delta_lightning.trainer.ranks import Ranks
    from support.sharded import cut

    def load() -> Any:
        return Pretrained(path=folder).load(LoadContext())

    def read() -> Any:
        files = Pretrained(path=folder).weight_files(LoadContext())
        assert files is not None
        model = spread_files(files, Sharding(mesh=init_device_mesh("cpu", (Ranks.current().size,))), None)
        if phase == CHECKED:
            files.accept(model)
        return model

    torch.set_num_threads(1)
    before = memory("VmRSS")
    model = load() if phase == WHOLE else cut(load) if phase == FROM_RANK_0 else read()
    if phase == HANDED:
        for parameter in model.parameters():
            full(parameter)
    elif phase == SAVED:
        with tempfile.TemporaryDirectory() as place:
            dcp.save({"model": model.state_dict()}, checkpoint_id=Ranks.current().all_objects(place)[0])
    elif phase == GATHERED:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        assert bool(get_model_state_dict(model, options=options)) == (Ranks.current().rank == 0)
    elif phase == EXPORTED:
        weights = gathered_weights(model)
        if Ranks.current().rank == 0:
            with tempfile.TemporaryDirectory() as place:
                write_model(Path(place), weights, model.config, shard_bytes=file_mib << 20)
        for _ in weights:
            pass
    return {"peak_mib": memory("VmHWM") - before, "held_mib": memory("VmRSS") - before}


def main() -> None:
    """Print a table, and write it as JSON beside this file."""
    parser = argparse.ArgumentParser()
    for name, value in (("ranks", 2), ("layers", 16), ("width", 512), ("file-mib", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parameters = make(Path(folder), layers=options.layers, width=options.width)
        weights = 4 * parameters / 2**20
        print(f"{parameters / 1e6:.0f} M parameters, {weights:.0f} MiB in float32, {options.ranks} ranks")
        results = {}
        for phase in PHASES:
            results[phase] = run_ranks(options.ranks, measure, phase, folder, options.file_mib)
            cells = "  ".join(f"rank {rank}: peak {one['peak_mib'] / weights:.2f}" for rank, one in enumerate(results[phase]))
            print(f"{phase:45} {cells}  (in whole models)", flush=True)
    found = {
        "parameters": parameters, "weights_mib": weights, "ranks": options.ranks, "phases": results, "torch": torch.__version__,
        "machine": platform.machine(),
    }  # fmt: skip
    Path(__file__).with_name(f"loading_{options.ranks}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
