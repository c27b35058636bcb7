"""The step loop of a T5 decoder in ONNX Runtime: caches that live here, and buffers that are bound once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.runtimes.onnxruntime import GraphSession

Floats = NDArray[np.float32]

# Slots of the first caches; each time they are full they double. Free slots are computed and masked.
_FIRST_SLOTS = 16


class CachedDecoder:
    """Components ``cross`` and ``decoder`` of a bundle. Made once; :meth:`start` begins a batch of sample paths."""

    def __init__(self, cross: GraphSession, decoder: GraphSession) -> None:
        self.cross, self.session = cross, decoder
        inputs = {info.name: info for info in decoder.inputs}
        self.layers = sum(name.startswith("past_key_") for name in inputs)
        _, _, heads, head, _ = inputs["past_key_0"].dims
        self.heads, self.head = int(heads), int(head)
        self.vocab = int(decoder.outputs[0].dims[-1])

    def start(self, encoded: Mapping[str, NDArray[Any]], samples: int, steps: int) -> DecoderRun:
        """Begin ``samples`` paths of ``steps`` tokens for each series.

        Args:
            encoded: outputs of the component ``encoder``, batch first.
            samples: paths per series; they share the series' cross-attention keys and values.
        """
        return DecoderRun(self, self.cross.run(encoded), samples, steps)

    def bytes_per_series(self, tokens: int, samples: int, steps: int) -> int:
        """Memory that a series takes while it is decoded: caches (twice while they grow), cross-attention, logits."""
        width = self.heads * self.head
        cache = 2 * self.layers * samples * width * max(steps, _FIRST_SLOTS)
        cross = 2 * self.layers * width * tokens + self.heads * samples * tokens * 2
        return 4 * (3 * cache // 2 + cross + 3 * samples * self.vocab)


class DecoderRun:
    """Sample paths under way. Every array that the graph reads or writes is bound once per size, none is copied."""

    def __init__(
        self, decoder: CachedDecoder, crossed: Mapping[str, NDArray[Any]], samples: int, steps: int
    ) -> None:
        self._decoder, self._steps = decoder, steps
        batch = len(crossed["cross_bias"])
        self._binding = decoder.session.ort.io_binding()
        self._position = np.zeros((), np.int64)
        self._tokens = np.zeros((batch, samples), np.int64)
        # What is bound must not be freed: the binding knows addresses only.
        self._crossed = {name: np.ascontiguousarray(value) for name, value in crossed.items()}
        self._logits = np.empty((batch, samples, decoder.vocab), np.float32)
        rows = (batch, samples, decoder.heads, decoder.head)
        self._new = [[np.empty(rows, np.float32) for _ in range(decoder.layers)] for _ in range(2)]
        for name, value in {"token_ids": self._tokens, "position": self._position, **self._crossed}.items():
            self._bind_input(name, value)
        self._bind_output("logits", self._logits)
        for kind, arrays in zip(("key", "value"), self._new, strict=True):
            for layer, array in enumerate(arrays):
                self._bind_output(f"new_{kind}_{layer}", array)
        self._keys: list[Floats] = []
        self._values: list[Floats] = []
        self._grow(0)

    def step(self, token_ids: NDArray[np.int64]) -> Floats:
        """One step for all paths.

        Args:
            token_ids: ``[B, S]``, the tokens drawn last; at first the decoder's start token.

        Returns:
            ``[B, S, V]`` logits of the next token, in a buffer that the next step overwrites.
        """
        self._tokens[:] = token_ids
        self._decoder.session.ort.run_with_iobinding(self._binding)
        position = int(self._position)
        if position + 1 == self._steps:
            return self._logits  # nothing will read the caches
        if position == self._keys[0].shape[-1]:
            self._grow(position)
        for layer in range(self._decoder.layers):
            self._keys[layer][..., position] = self._new[0][layer]
            self._values[layer][..., position, :] = self._new[1][layer]
        self._position += 1
        return self._logits

    def _grow(self, used: int) -> None:
        """Make room for more than the ``used`` steps."""
        batch, samples, heads, head = self._new[0][0].shape
        capacity = max(1, min(2 * used or _FIRST_SLOTS, self._steps - 1))
        old_keys, old_values = self._keys, self._values
        self._keys, self._values = [], []
        for layer in range(self._decoder.layers):
            # Zeros: free slots are masked, but a NaN there would survive a product with 0.
            keys = np.zeros((batch, samples, heads, head, capacity), np.float32)
            values = np.zeros((batch, samples, heads, capacity, head), np.float32)
            if used:
                keys[..., :used], values[..., :used, :] = old_keys[layer], old_values[layer]
                old_keys[layer] = old_values[layer] = np.empty(0, np.float32)
            self._keys.append(keys)
            self._values.append(values)
            self._bind_input(f"past_key_{layer}", keys)
            self._bind_input(f"past_value_{layer}", values)

    def _bind_input(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: NDArray[Any]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
