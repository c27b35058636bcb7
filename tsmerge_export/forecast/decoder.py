"""The step loop of a T5 decoder: caches that live here, and buffers that are bound once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.components import StepSession
from tsmerge_export.errors import UsageError

Floats = NDArray[np.float32]

# Slots of the first caches; each time they are full they double. Free slots are computed and masked.
_FIRST_SLOTS = 16


class CachedDecoder:
    """Components ``cross`` and ``decoder`` of a bundle. Made once; :meth:`start` begins a batch of sample paths."""

    def __init__(self, cross: StepSession, decoder: StepSession) -> None:
        self.cross, self.session = cross, decoder
        inputs = {info.name: info for info in decoder.inputs}
        self.layers = sum(name.startswith("past_key_") for name in inputs)
        dims = inputs["past_key_0"].dims
        if dims != inputs["past_value_0"].dims:
            raise UsageError("the bundle's decoder keeps its caches as an older version did; export it again")
        self.heads, self.head = int(dims[2]), int(dims[4])
        self.vocab = int(decoder.outputs[0].dims[-1])

    def start(self, encoded: Mapping[str, NDArray[Any]], samples: int, steps: int) -> DecoderRun:
        """Begin ``samples`` paths of ``steps`` tokens for each series.

        Args:
            encoded: outputs of the component ``encoder``, batch first.
            samples: paths per series; they share the series' cross-attention keys and values.
        """
        return DecoderRun(self, self.cross.run(encoded), samples, steps)

    def bytes_per_series(self, tokens: int, samples: int, steps: int) -> int:
        """Memory that a series takes while it is decoded: caches (one of them twice while they grow),
        cross-attention, logits."""
        width = self.heads * self.head
        cache = samples * width * max(steps, _FIRST_SLOTS)
        cross = 2 * self.layers * width * tokens + self.heads * samples * tokens * 2
        return 4 * ((2 * self.layers + 1) * cache + cross + 3 * samples * self.vocab)


class DecoderRun:
    """Sample paths under way. Every array that the graph reads or writes is bound once per size, none is copied."""

    def __init__(
        self, decoder: CachedDecoder, crossed: Mapping[str, NDArray[Any]], samples: int, steps: int
    ) -> None:
        self._decoder, self._samples, self._steps = decoder, samples, steps
        self._batch = len(crossed["cross_bias"])
        self._bound = decoder.session.bound()
        self._position = np.zeros((), np.int64)
        self._crossed = {name: np.ascontiguousarray(value) for name, value in crossed.items()}
        for name, value in {"position": self._position, **self._crossed}.items():
            self._bound.bind(name, value)
        self._paths = 0  # as many as are bound

    def step(self, token_ids: NDArray[np.int64]) -> Floats:
        """One step for all paths.

        Args:
            token_ids: the tokens drawn last, ``[B, S]``. At first ``[B, 1]`` will do where all paths of a series begin
                with the same token: the step is then computed once per series.

        Returns:
            Logits of the next token, one row per token given, in a buffer that the next step overwrites.
        """
        if not self._paths:
            self._bind_paths(token_ids.shape[1])
            self._allocate(1)
        self._tokens[:] = token_ids
        self._bound.run()
        logits, new, position = self._logits, self._new, int(self._position)
        if position + 1 == self._steps:
            return logits  # nothing will read the caches
        if position == 0:
            if self._paths != self._samples:
                self._bind_paths(self._samples)
            self._allocate(self._steps - 1)
        if position in (0, self._caches[0].shape[3]):
            self._grow(position)
        split = (self._batch, -1, self._decoder.heads, self._decoder.head)
        for cache, array in zip(self._caches, new, strict=True):
            cache[..., position, :] = array.reshape(split)
        self._position += 1
        return logits

    def _allocate(self, capacity: int) -> None:
        """Buffers for that many steps, all of them bound."""
        # Zeros: free slots are masked, but a NaN there would survive a product with 0.
        self._buffers = [np.zeros(self._size(capacity), np.float32) for _ in self._new]
        self._bind_caches(capacity)

    def _size(self, capacity: int) -> int:
        return self._batch * self._paths * self._decoder.heads * capacity * self._decoder.head

    def _grow(self, used: int) -> None:
        """Make room for more than the ``used`` steps, inside the buffers: a step reads all slots, used or not."""
        old = self._caches
        self._bind_caches(min(2 * used or _FIRST_SLOTS, self._steps - 1))
        for cache, before in zip(self._caches, old, strict=True):
            if used:
                cache[..., :used, :] = before  # they overlap, which numpy sees

    def _bind_paths(self, paths: int) -> None:
        """Bind what has one entry per path: tokens, logits, new keys and values."""
        decoder, rows = self._decoder, (self._batch, paths)
        self._paths = paths
        self._tokens = np.zeros(rows, np.int64)
        self._logits = np.empty((*rows, decoder.vocab), np.float32)
        self._bound.bind("token_ids", self._tokens)
        self._bound.bind("logits", self._logits, output=True)
        width = decoder.heads * decoder.head
        self._new = [np.empty((*rows, width), np.float32) for _ in range(2 * decoder.layers)]
        for name, array in zip(self._names("new"), self._new, strict=True):
            self._bound.bind(name, array, output=True)

    def _bind_caches(self, capacity: int) -> None:
        """Bind the first part of each buffer as a cache ``[B, S, H, capacity, head]``."""
        shape = (self._batch, self._paths, self._decoder.heads, capacity, self._decoder.head)
        self._caches = [buffer[: self._size(capacity)].reshape(shape) for buffer in self._buffers]
        for name, cache in zip(self._names("past"), self._caches, strict=True):
            self._bound.bind(name, cache)

    def _names(self, prefix: str) -> list[str]:
        return [f"{prefix}_{kind}_{i}" for kind in ("key", "value") for i in range(self._decoder.layers)]
