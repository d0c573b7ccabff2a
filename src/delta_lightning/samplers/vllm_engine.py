"""Starting vLLM inside the trainer's process, and keeping its hands off what is the trainer's."""

from __future__ import annotations

import copy
import os
import random
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.samplers.vllm_heads import check_cpu_heads

if TYPE_CHECKING:
    from delta_lightning.samplers.vllm import VLLMSampler

# Read by vLLM when it is imported or when an engine starts; what the user has set stays.
SETTINGS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads and the verifiers use the same cores
    # The runner that knows our logits processor. The one that GPUs would get knows another kind, which has not been tried.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}


def start_engine(options: VLLMSampler, context: SamplerContext) -> Any:
    """A vLLM engine for the architecture of the model, its weights still random: they come by `reload_weights`.

    Only `config.json` is written, to a temporary folder that is gone when this returns: no file and no second copy holds the
    weights. Collective where several ranks share an engine. Raises `ConfigError` if vLLM refuses the model or the options.
    """
    model, device = context.model, context.device
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine is in this process: weights are handed over, not sent
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    dtype = options.dtype if options.dtype != "auto" else str(next(model.parameters()).dtype).removeprefix("torch.")
    settings: dict[str, Any] = {
        "skip_tokenizer_init": True,  # token ids in, token ids out
        "load_format": "dummy",
        "dtype": dtype,
        "max_model_len": options.context or int(model.config.max_position_embeddings),
        "max_num_seqs": options.max_sequences,
        "enable_prefix_caching": options.prefix_caching,
        "enforce_eager": options.eager,
        "logprobs_mode": "processed_logprobs",
        "async_scheduling": False,  # `KeptMass` counts a row's tokens, which an asynchronous step does not know yet
        "generation_config": "vllm",
        "seed": 0,
        "disable_log_stats": True,
        "tensor_parallel_size": options.tensor_parallel,
        "enable_sleep_mode": options.sleep,
    } | _memory(options, device)
    with _trainers_own(model, device), tempfile.TemporaryDirectory(prefix="delta_lightning_vllm_") as folder:
        from vllm import EngineArgs, LLMEngine

        from delta_lightning.samplers.vllm_warp import logits_processor

        if device.type == "cpu":
            check_cpu_heads(model.config, "VLLMSampler")
        config = copy.deepcopy(model.config)
        config.architectures = [library_class(model).__name__]
        config.save_pretrained(folder)
        settings |= {"logits_processors": [logits_processor()], "distributed_executor_backend": _executor(context)}
        try:
            return LLMEngine.from_engine_args(EngineArgs(model=folder, **settings))
        except (ValueError, NotImplementedError) as error:  # pydantic's ValidationError is a ValueError
            raise ConfigError(
                "model.sampler=VLLMSampler", wanted="a model and options that vLLM can serve", got=_reason(error),
                remedy="Change model.sampler's options, or use --model.sampler=HFSampler.",
            ) from error  # fmt: skip


def ranks_are_joined() -> bool:
    """True if the process has a default process group, which a vLLM engine that starts now joins."""
    return dist.is_available() and dist.is_initialized()


def stop_engine(engine: Any, *, keep_ranks: bool) -> None:
    """Free the engine. With `keep_ranks` the default process group, which is the trainer's, stays; vLLM would destroy it."""
    destroy = dist.destroy_process_group

    def destroy_own(group: Any = None) -> None:
        if group is not None:
            destroy(group)

    if keep_ranks:
        dist.destroy_process_group = destroy_own
    try:
        engine.engine_core.shutdown()
    finally:
        dist.destroy_process_group = destroy


def library_class(module: Any) -> type:
    """The class of `transformers` that a module is, also where sharding made a subclass of it."""
    return next(cls for cls in type(module).__mro__ if cls.__module__.startswith("transformers."))


def _executor(context: SamplerContext) -> type:
    """vLLM's executor for ranks that were launched outside it, one worker in each.

    It is told which rank and device it has. vLLM's own reads the environment variables RANK and LOCAL_RANK, which not every
    launcher sets, and without it every rank's engine would go to the first GPU.
    """
    from vllm.utils.network_utils import get_file_store_init_method
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    # A process group that is there is joined, and the address is not used. Its end names shared memory on CPUs, so that it must
    # not be another run's; and since ranks differ in it they add up through gloo, which waits without holding a core.
    address = f"joined:{uuid.uuid4().hex}" if ranks_are_joined() else get_file_store_init_method()
    place = address, context.rank, _index(context.device)
    return type("BesideTrainer", (ExecutorWithExternalLauncher,), {"_distributed_args": lambda self: place})


def _index(device: torch.device) -> int:
    index: int | None = device.index
    if device.type == "cpu":
        return 0
    return torch.cuda.current_device() if index is None else index


def _memory(options: VLLMSampler, device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        # The share is only checked against free memory, since the cache's size is given.
        return {"kv_cache_memory_bytes": int(options.cache_gib * 2**30), "gpu_memory_utilization": 0.05}
    return {"gpu_memory_utilization": options.memory_share}


def _reason(error: ValueError | NotImplementedError) -> str:
    """What vLLM says: pydantic wraps it in the number of errors and an address, others end with it."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        text = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[-1] if lines else type(error).__name__
    return text.strip().rstrip(".")


@contextmanager
def _trainers_own(model: Any, device: torch.device) -> Iterator[None]:
    """Puts back what starting an engine changes in the process.

    Seeds of Python, NumPy and PyTorch; the precision of float32 products; the number of PyTorch's threads, which vLLM sets to
    one, and `torch.set_num_threads`, which it turns off on CPUs; environment variables that other processes would inherit
    (LD_PRELOAD, LOCAL_WORLD_SIZE); and the class of the model's body: for architectures that vLLM runs through `transformers`
    (Olmo3) it replaces `__init__` and `__call__` of that class, after which the training model of the same class would fail.
    """
    import numpy

    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    threads, number, precision = torch.set_num_threads, torch.get_num_threads(), torch.get_float32_matmul_precision()
    environment = dict(os.environ)
    body: Any = library_class(model.model)
    begin, call = body.__init__, body.__call__
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, device)
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads = threads
        torch.set_num_threads(number)
        for name in {*environment, *os.environ}:
            if name.startswith("VLLM_"):
                continue
            if name in environment:
                os.environ[name] = environment[name]
            else:
                del os.environ[name]
        if body.__call__ is not call:
            _share_class(body, begin, call)


def _share_class(body: Any, begin: Any, call: Any) -> None:
    """Instances that vLLM made keep its `__call__`; all others, and new ones, are as `transformers` made them."""
    vllms = body.__call__

    def dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (vllms if "do_not_compile" in vars(self) else call)(self, *args, **kwargs)

    body.__call__, body.__init__ = dispatch, begin
