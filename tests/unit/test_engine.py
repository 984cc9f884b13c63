"""runbook.jupyter.engine: how papermill executes a notebook of a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runbook.jupyter import engine


class Starting:
    """Stands in for a run's kernels; the next one starts when it is let, or can't be started."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let, self.started, self.error = asyncio.Event(), 0, error

    async def start_next(self) -> None:
        await self.let.wait()
        if self.error:
            raise self.error
        self.started += 1


def test_a_notebook_goes_on_while_the_next_ones_kernel_starts() -> None:
    """It begins without waiting for that, and at its end the other is there."""

    async def notebook() -> list[int]:
        kernels: Any = Starting()
        ahead = engine._Ahead(kernels)
        await ahead.begin(notebook={})
        seen = [kernels.started]
        kernels.let.set()
        await ahead.done()
        return [*seen, kernels.started]

    assert asyncio.run(notebook()) == [0, 1]


def test_a_kernel_that_can_not_be_started_is_told() -> None:
    """The error comes when the notebook ends; one that never began has nothing to wait for."""

    async def notebook() -> None:
        kernels: Any = Starting(OSError("no more processes"))
        ahead = engine._Ahead(kernels)
        await ahead.done()
        await ahead.begin()
        kernels.let.set()
        await ahead.done()

    with pytest.raises(OSError, match="no more processes"):
        asyncio.run(notebook())
