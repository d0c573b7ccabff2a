"""Passes of sharded models in which a rank that runs out of memory stays in step with the others.

Each layer's parameters are gathered from all ranks when a pass reaches it. A rank that stopped in the middle would leave the
others waiting for its share. Within `in_step` it computes nothing any more, but reaches every layer of every pass that was
promised, and only then raises: all ranks come out at the same place, and can agree on what to do next.

The parameters are gathered in forward hooks of the layers. What a layer computes is inside of them, so that an error that is
caught there leaves the hooks as they are after any pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any, TypeVar

import torch

from delta_lightning.models.sharding import enter, sharding_of

Result = TypeVar("Result")


class OutOfStep(Exception):  # noqa: N818 -- what happened to the rank
    """This rank could not gather parameters to the end: the others wait for it, so that it must not call them.

    No `RuntimeError`, so that nobody takes it for what it was raised from.
    """


@dataclass(frozen=True)
class _Course:
    """The passes that are left, by their models, and the errors to stay in step for."""

    left: deque[Any]
    known: Callable[[BaseException], bool]


_COURSE: ContextVar[_Course | None] = ContextVar("course", default=None)


@contextmanager
def in_step(models: Sequence[Any], known: Callable[[BaseException], bool]) -> Iterator[None]:
    """The block passes through each of `models` by `read`, in this order, without gradient, and calls no other collective.

    Left by an error that `known` accepts, the remaining passes are made without computing anything, then it is raised. Models
    that are not sharded cost nothing and are left out.

    Raises:
        OutOfStep: parameters could not be gathered, at the second try.
    """
    course = _Course(deque(model for model in models if sharding_of(model) is not None), known)
    before = _COURSE.set(course)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not known(error):
            raise
        clear_frames(error.__traceback__)  # gathering needs the memory that the pass held
        _catch_up(course, error)
        raise
    finally:
        _COURSE.reset(before)


def read(model: Any, function: Callable[..., Result], *args: Any) -> Result:
    """`enter(model, function, *args)`, for a function that calls every decoder layer once; a pass within `in_step`."""
    course = _COURSE.get()
    if course is None or sharding_of(model) is None:
        return enter(model, function, *args)
    current = _Pass(course)
    result: Any = enter(model, current.run, function, *args)
    if current.error is not None:
        raise current.error
    return result  # type: ignore[no-any-return]


@torch.no_grad()
def _catch_up(course: _Course, error: BaseException) -> None:
    try:
        while course.left:
            enter(course.left[0], _Pass(course, error).run, None)
    except (RuntimeError, MemoryError) as again:  # embedding, norm and head did not fit
        raise OutOfStep(str(again)) from error


class _Pass:
    """One pass. Once `error` is known, layers give back what they get, and the pass goes on to gather all of them."""

    def __init__(self, course: _Course, error: BaseException | None = None) -> None:
        self._course, self.error = course, error
        self._reached = 0  # layers whose parameters were gathered

    def run(self, model: Any, function: Callable[..., Result] | None, *args: Any) -> Result | None:
        """Inside the root's forward pass: `function(model, *args)`, None for nothing, and the layers that it did not reach."""
        assert self._course.left[0] is model and not torch.is_grad_enabled()
        self._course.left.popleft()
        result = None
        with self._guarded(model.model.layers):
            if function is not None:
                try:
                    result = function(model, *args)
                except (RuntimeError, MemoryError) as error:  # before, after or between layers, or gathering one
                    self._note(error)
            if self.error is not None:
                self._rest(model.model.layers)
        return result

    def _rest(self, layers: Any) -> None:
        try:
            for layer in layers[self._reached :]:
                layer(None)
        except (RuntimeError, MemoryError) as again:
            raise OutOfStep(str(again)) from self.error

    def _note(self, error: RuntimeError | MemoryError) -> None:
        if not self._course.known(error):
            raise error
        clear_frames(error.__traceback__)
        self.error = error

    @contextmanager
    def _guarded(self, layers: Any) -> Iterator[None]:
        """For the block, errors of what layers compute are noted inside of the hooks that gather."""
        own = [(layer, layer.__dict__.get("forward")) for layer in layers]  # one that recomputes has its own
        for layer, _ in own:
            layer.forward = self._inside(layer.forward)
        try:
            yield
        finally:
            for layer, forward in own:
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward

    def _inside(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(hidden_states: Any, *args: Any, **options: Any) -> Any:
            self._reached += 1
            if self.error is not None:
                return hidden_states
            try:
                return forward(hidden_states, *args, **options)
            except (RuntimeError, MemoryError) as error:
                self._note(error)
                return hidden_states

        return guarded
