"""`--trainer.strategy=fsdp2`: parameters, gradients and optimiser state sharded over all ranks (FSDP2 of torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.api import CheckpointException

from delta_lightning.errors import RunError, require
from delta_lightning.models.adapted import adapter_off
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.sharding import Sharding, unsummed
from delta_lightning.models.spreading import spread, spread_files
from delta_lightning.models.weight_files import WeightFiles
from delta_lightning.trainer.callbacks.atomic import beside, still_there, unwritten, whole
from delta_lightning.trainer.callbacks.manifest import read_sums, write_manifest
from delta_lightning.trainer.ranks import Ranks

DTYPES = {"model": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
BOTH_BACKENDS = "cpu:gloo,cuda:nccl"  # shards in main memory are summed there too


def _no_files() -> None:
    return None


class FSDP2Strategy(ModelParallelStrategy):
    """Shards the policy over all ranks: data parallel, each rank holding one part of every parameter.

    Works on GPUs (NCCL) and on CPUs (gloo), with one rank too. Each rank reads its own rows of a model's safetensors files;
    where there are none, rank 0 loads the model in main memory and hands the others their shards. Decoder layers are gathered
    one at a time; embedding, final norm and head together.

    Args:
        compute_dtype: of gathered parameters and of the computation, sampling by HFSampler included; "model" is the dtype of
            the weights. "bfloat16" beside float32 weights is usual on GPUs.
        reduce_dtype: of the sum of gradients over ranks.
        reshard_after_forward: let go of each layer after its forward pass and gather it again for the backward pass. False
            needs more memory and communicates less.
        accumulate: where gradients of the micro-batches of an optimiser step add up. "sharded": summed over ranks after each
            micro-batch, each rank keeps its shard. "unsharded": summed once per optimiser step, while each rank keeps a
            gradient of the whole model in `reduce_dtype`.
        cpu_offload: keep shards, gradients and optimiser in main memory, and update there.
        distributed_checkpoint: a checkpoint is a folder into which each rank writes its part; False gathers everything in rank
            0's main memory and writes one file, which other strategies can read too.
        timeout_minutes: how long ranks wait for one another, whose rollouts take different times, before the run fails.
    """

    strategy_name = "fsdp2"

    def __init__(
        self,
        compute_dtype: Literal["model", "float32", "bfloat16"] = "model",
        reduce_dtype: Literal["float32", "bfloat16"] = "float32",
        reshard_after_forward: bool = True,
        accumulate: Literal["sharded", "unsharded"] = "sharded",
        cpu_offload: bool = False,
        distributed_checkpoint: bool = True,
        timeout_minutes: float = 60.0,
    ) -> None:
        require(timeout_minutes > 0, "FSDP2Strategy.timeout_minutes", wanted="more than 0", got=timeout_minutes,
                remedy="60 is usual.")  # fmt: skip
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=distributed_checkpoint,
            timeout=timedelta(minutes=timeout_minutes),
        )  # fmt: skip
        self.compute_dtype, self.reduce_dtype = compute_dtype, reduce_dtype
        self.reshard_after_forward, self.cpu_offload = reshard_after_forward, cpu_offload
        self.accumulate = accumulate
        self.distributed_checkpoint = distributed_checkpoint

    def setup_environment(self) -> None:
        """Lightning's default is tensor parallelism over the devices of a node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        if self.cpu_offload and self.root_device.type == "cuda":
            self._process_group_backend = self._process_group_backend or BOTH_BACKENDS
        super().setup_environment()

    def place(
        self, load: Callable[[], Any], files: Callable[[], WeightFiles | None] = _no_files, adapter: Adapter | None = None
    ) -> Any:
        """The model, sharded over all ranks: from files of which each rank reads its part, else as `load` gives it on rank 0.

        Collective.
        """
        sharding = Sharding(
            mesh=self.device_mesh["data_parallel"], compute_dtype=DTYPES[self.compute_dtype],
            reduce_dtype=DTYPES[self.reduce_dtype], reshard_after_forward=self.reshard_after_forward, offload=self.cpu_offload,
        )  # fmt: skip
        with self._together("the model could not be loaded"):
            found = files()
            policy = None if found is None else spread_files(found, sharding, adapter)
        if found is None:
            return spread(load, sharding, self.broadcast)
        with adapter_off(policy):  # its values are not drawn yet
            found.accept(policy)
        return policy

    def model_to_device(self) -> None:
        """The policy is where it belongs since it was placed; the module only needs to know where that is."""
        assert self.lightning_module is not None
        if not self.cpu_offload:
            super().model_to_device()
            return
        from lightning.fabric.utilities.device_dtype_mixin import _update_properties

        _update_properties(self.lightning_module, device=self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Lightning enters this for all but the last micro-batch of an optimiser step."""
        with unsummed(self.model) if self.accumulate == "unsharded" else nullcontext():
            yield

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None) -> None:
        """Write each rank's part beside its place; renamed when all are complete. Collective. Raises `RunError`."""
        if not self.distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        target = Path(self.broadcast(filepath))
        with ExitStack() as stack:
            with self._together():
                if self.is_global_zero:
                    stack.enter_context(whole(target, "the checkpoint"))
            with self._together(), _told(target):
                super().save_checkpoint(checkpoint, beside(target), storage_options)
                mine = read_sums(beside(target).glob(f"__{self.global_rank}_*"))  # as torch names this rank's files
            sums = Ranks.current().all_objects(mine)
            with self._together():
                if self.is_global_zero:
                    with _told(target):
                        write_manifest(beside(target), {name: one for part in sums for name, one in part.items()})
        self.barrier("renamed")

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read each rank's part, from the path that rank 0 was given. Collective. Raises `RunError` where it has gone."""
        with still_there(Path(checkpoint_path)):
            return super().load_checkpoint(checkpoint_path, weights_only)

    @contextmanager
    def _together(self, failed: str = "the checkpoint could not be written") -> Iterator[None]:
        """What fails on one rank fails on all, so that none waits for it. Collective."""
        done = False
        try:
            yield
            done = True
        finally:
            everywhere = self.reduce_boolean_decision(done)
        if not everywhere:
            raise RunError(f"{failed} by every rank; the one that failed says why")


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Says why `target` could not be written."""
    try:
        yield
    except (CheckpointException, OSError, RuntimeError) as error:
        # The first kind is raised on all ranks, with what happened on some.
        cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        told = unwritten(cause, target, "the checkpoint")
        if told is None:
            raise
        raise told from error
