"""CUDA graphs on emulated CUDA: calls of operators, repeated on the memory that they were recorded with.

While one is recorded nothing is written, as on a GPU. Memory is not shared within a recording, which a GPU does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Recording:
    """What stands for a `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[[], Any], list[Tensor]]] = []
        self._kept: list[Tensor] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def keep(self, written: Sequence[Tensor]) -> None:
        """Note what an operator is about to write to: a GPU runs nothing while a graph is recorded."""
        self._before += [(one, one.clone()) for one in written]

    def add(self, call: Callable[[], Any], results: Sequence[Tensor], on_host: list[Tensor]) -> None:
        """An operator's call, which reads and writes the host's memory, and its results on the GPU and on the host."""
        self._calls.append((call, on_host))
        self._kept += results

    def undo(self) -> None:
        """Restore what was written since the recording began."""
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Call all operators again."""
        for call, kept in self._calls:
            results = [leaf for leaf in tree_leaves(call()) if isinstance(leaf, Tensor)]
            for own, result in zip(kept, results, strict=True):
                if own.data_ptr() != result.data_ptr():
                    own.copy_(result)


class Recorder(Protocol):
    """What records: an `Emulation`."""

    recording: Recording | None


@contextmanager
def graphs_by(emulated: Recorder) -> Iterator[None]:
    """Within the block torch's CUDA graphs are recorded by an emulation."""

    @contextmanager
    def graph(recording: Recording, **_: Any) -> Iterator[None]:
        emulated.recording = recording
        try:
            yield
        finally:
            emulated.recording = None
            recording.undo()

    with mock.patch.object(torch.cuda, "CUDAGraph", Recording), mock.patch.object(torch.cuda, "graph", graph):
        yield
