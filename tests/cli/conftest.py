"""Fixtures of the command line's tests."""

from support.cli import invoke, loads

__all__ = ["invoke", "loads"]
