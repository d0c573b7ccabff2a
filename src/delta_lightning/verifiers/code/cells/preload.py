"""Modules that many programs and tests import, imported once, so that every cell finds them loaded.

Few and small ones: each page that the zygote holds costs every fork of it. The others are read when a program asks for them.
"""

from __future__ import annotations

import bisect  # noqa: F401
import collections  # noqa: F401
import copy  # noqa: F401
import functools  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import math  # noqa: F401
import operator  # noqa: F401
import re  # noqa: F401
import string  # noqa: F401
import typing  # noqa: F401
