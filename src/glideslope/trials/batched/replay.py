"""Replay: the updates of a stretch, one after the other, on a GPU as one graph that is launched once per update.

A small update is a hundred kernels of a few microseconds each, and Python and the driver need longer to launch them
than the GPU to run them. A CUDA graph launches them all at once. It repeats what it has seen to the address, so
whatever differs between updates has to lie in tables whose place never changes: one row per update, picked by a counter
that lies on the device as well. Reading the counter from Python would wait for the GPU at every update.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

WARM_UP = 3
"""Real updates that a GPU computes without a graph: libraries choose kernels and take memory at their first calls."""

Row = Mapping[str, Tensor]
"""What one update takes, or leaves behind, by name."""


class CaptureFailed(RuntimeError):  # noqa: N818 - it names the fact
    """An update cannot be made a graph: its code waits for the device, or changes with the update."""


@final
class Replay:
    """Runs updates from tables.

    Args:
        update: (its row of every input table, whether it is the first of all) → what is to be seen of it, each of one
            shape. It changes tensors in place, on the device alone, and never reads one from Python.
        length: the most updates in a stretch, >= 1.
        device: "cpu" or "cuda".
        graphs: whether updates become a graph; only on CUDA.
    """

    def __init__(self, update: Callable[[Row, bool], Row], length: int, device: str, graphs: bool) -> None:
        self.update: Callable[[Row, bool], Row] | None = update
        self.length, self.device = length, device
        self.index = torch.zeros(1, dtype=torch.int64, device=device)
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.stream: Any = torch.cuda.Stream() if graphs else None  # type: ignore[no-untyped-call]
        self.graph: Any = None
        self.done = self.started = 0

    def start(self, inputs: Row) -> None:
        """Set off a stretch of updates. On a GPU it runs on while this process does something else.

        Args:
            inputs: tables (updates, …), on any device; the same names, types and shapes in every stretch, but for the
                number of updates.
        """
        self.started = len(next(iter(inputs.values())))
        for name, table in inputs.items():
            if name not in self.inputs:
                self.inputs[name] = torch.empty(self.length, *table.shape[1:], dtype=table.dtype, device=self.device)
            self.inputs[name][: self.started].copy_(table)
        self.index.zero_()
        if self.stream is None:
            for _ in range(self.started):
                self._one()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(self.started):
                self._launch()
        torch.cuda.current_stream().wait_stream(self.stream)

    def finish(self) -> dict[str, Tensor]:
        """Wait for the stretch. Returns: what was seen of it, tables (updates, …) on the CPU."""
        return {name: table[: self.started].to("cpu", copy=True) for name, table in self.outputs.items()}

    def close(self) -> None:
        """Let go of the device's memory: the graph, its tables and the update, which usually knows this object."""
        self.graph = self.update = None
        self.inputs, self.outputs = {}, {}

    def _launch(self) -> None:
        if self.graph is None and self.done < WARM_UP:
            self._one()
            return
        if self.graph is None:
            self.graph = self._captured()
        self.graph.replay()
        self.done += 1

    def _captured(self) -> Any:
        # What is collected during capture may be another graph, whose end the driver would take for a part of this one.
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._compute(is_first=False)
        except Exception as error:
            first = error.__context__ or error  # the end of a capture fails too, with less to say
            raise CaptureFailed(f"{type(first).__name__}: {first}") from error
        return graph

    def _one(self) -> None:
        self._compute(is_first=self.done == 0)
        self.done += 1

    def _compute(self, is_first: bool) -> None:
        """The update that the counter stands at: all that a graph consists of."""
        if self.update is None:
            raise RuntimeError("this Replay is closed")
        # Not `table[index]`: an index of no axes is read back by the host.
        row = {name: table.index_select(0, self.index)[0] for name, table in self.inputs.items()}
        with _casts_not_kept():
            seen = self.update(row, is_first)
        for name, values in seen.items():
            if name not in self.outputs:
                self.outputs[name] = values.new_zeros(self.length, *values.shape)
            self.outputs[name].index_copy_(0, self.index, values[None])
        self.index.add_(1)


@contextmanager
def _casts_not_kept() -> Iterator[None]:
    """Autocast keeps weights that it has cast, which a graph would find at an address that is no longer theirs."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
