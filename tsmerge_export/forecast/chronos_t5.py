"""Chronos-T5: tokens in, sample paths out; the encoder once per series, the decoder step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.components import Session, StepSession
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.notes import note
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs as check
from tsmerge_export.forecast import sampling
from tsmerge_export.forecast.base import Floats, alike
from tsmerge_export.forecast.decoder import CachedDecoder, DecoderRun
from tsmerge_export.forecast.samples import SampleForecaster
from tsmerge_export.forecast.sampling import Sampling
from tsmerge_export.forecast.tokenizer import MeanScaleTokenizer

Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]


class ChronosT5(SampleForecaster):
    """A bundle of Chronos-T5; see :func:`tsmerge_export.pipeline`."""

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        missing = [name for name in ("encoder", "cross", "decoder") if name not in session.components]
        if missing:
            raise UsageError(
                f"{bundle.path}: has no component {missing[0]!r}; export it again with this version"
            )
        self._decoder = CachedDecoder(session["cross"], session["decoder"])
        try:
            self.tokenizer = MeanScaleTokenizer.from_dict(self._settings["tokenizer"])
            self._start = int(self._settings["decoder_start_token_id"])
            self._defaults = {
                name: self._settings[name] for name in ("num_samples", "temperature", "top_k", "top_p")
            }
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"{bundle.path}: its pipeline settings are incomplete; export it again"
            ) from None

    @property
    def _encoder(self) -> StepSession:
        return self.session["encoder"]

    def predict(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        num_samples: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        limit_prediction_length: bool = False,
        *,
        seed: int | None = None,
        first_series: int = 0,
        ratio: Any = None,
    ) -> Floats:
        """Sample paths ``[B, num_samples, prediction_length]`` float32.

        A horizon beyond the model's own is forecast in pieces; each piece sees the median of the paths so far.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps; the model's own for None.
            num_samples, temperature, top_k, top_p: of the sampling; the model's own for None. ``top_k=1`` is greedy.
            limit_prediction_length: refuse horizons beyond the model's own.
            seed: the same seed gives the same paths; every series draws from a stream of its own. None: a fresh one.
            first_series: number of the first series in the seed's streams, to split a long call.
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 (nothing merges) to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: inputs or numbers that make no sense.
        """
        steps = check.prediction_length(prediction_length, self._horizon, limit_prediction_length)
        samples, how = self._sampling(num_samples, temperature, top_k, top_p)
        seed = check.seed(seed)
        rows, block = check.as_rows(inputs, self._context), self.at(ratio)._block
        if steps > self._horizon:
            note(f"the model was made for {self._horizon} steps; {steps} may be worse")
        blocks = [self._horizon] * (steps // self._horizon)
        blocks += [steps % self._horizon] if steps % self._horizon else []
        out = np.empty((len(rows), samples, steps), np.float32)
        done = 0
        for index, length in enumerate(blocks):
            if index:
                # The lower of two medians, as torch has it.
                middle = np.sort(out[:, :, done - blocks[index - 1] : done], axis=1)[:, (samples - 1) // 2]
                rows = [np.concatenate(pair)[-self._context :] for pair in zip(rows, middle, strict=True)]
            with self._working():
                out[:, :, done : done + length] = block(
                    rows, samples, length, how, seed, index, first_series, (done, steps)
                )
            done += length
        return out

    def _sampling(self, num_samples: Any, temperature: Any, top_k: Any, top_p: Any) -> tuple[int, Sampling]:
        given = {"num_samples": num_samples, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        value = {name: self._defaults[name] if v is None else v for name, v in given.items()}
        how = Sampling(
            temperature=check.number("temperature", value["temperature"], 0, 1e6, above=True),
            top_k=check.whole("top_k", value["top_k"], 0, 2**31),
            top_p=check.number("top_p", value["top_p"], 0, 1),
            banned=self.tokenizer.eos,
        )
        return check.whole("num_samples", value["num_samples"], 1, check.MAX_SAMPLES), how

    def _block(
        self,
        rows: Sequence[Floats],
        samples: int,
        steps: int,
        how: Sampling,
        seed: int,
        block: int,
        first: int,
        done: tuple[int, int],
    ) -> Floats:
        """``[B, samples, steps]``: one horizon, in as many parts as memory asks for."""
        tokens = max(map(len, rows)) + int(self.tokenizer.use_eos)
        series, paths = self._parts(tokens, samples, steps)
        out = np.empty((len(rows), samples, steps), np.float32)
        parts = [(b, s) for b in range(0, len(rows), series) for s in range(0, samples, paths)]
        total = len(parts) * done[1]
        for index, (b, s) in enumerate(parts):
            part = rows[b : b + series]
            uniform = np.stack(
                [
                    sampling.uniforms(seed, first + b + i, block, samples, steps)[s : s + paths]
                    for i in range(len(part))
                ]
            )
            encoded, scale = self._encode(part)

            def tell(step: int, base: int = len(parts) * done[0] + index * steps) -> None:
                self.progress.update(base + step, total)

            run = self._decoder.start(encoded, *uniform.shape[1:])
            del encoded
            drawn = draw_paths(run, self._start, uniform, how, tell)
            out[b : b + series, s : s + paths] = self.tokenizer.decode(drawn, scale)
        return out

    def _parts(self, tokens: int, samples: int, steps: int) -> tuple[int, int]:
        """Series and paths that fit into the memory budget together."""
        heads, width = self._decoder.heads, self._encoder.outputs[0].dims[-1]
        # Scores of one encoder layer, before and after softmax, and a feed-forward layer of usual width.
        encoder = 4 * tokens * (2 * heads * tokens + 8 * int(width))

        def need(paths: int) -> int:
            return max(encoder, self._decoder.bytes_per_series(tokens, paths, steps))

        paths = samples
        while paths > 1 and need(paths) > self._memory:
            paths = (paths + 1) // 2
        return max(1, self._memory // need(paths)), paths

    def _encode(self, rows: Sequence[Floats]) -> tuple[Arrays, Floats]:
        """The encoder's outputs for series ``[L]``, filled up behind with masked tokens to the longest; scales ``[B]``.

        A scale is a sum over the series alone: in one over its padding too, rounding would depend on the longest.
        """
        lengths = [len(row) for row in rows]
        longest = max(lengths) + int(self.tokenizer.use_eos)
        ids = np.full((len(rows), longest), self.tokenizer.pad, np.int64)
        mask, scale = np.zeros_like(ids), np.empty(len(rows), np.float32)
        for group in alike(lengths):
            own_ids, own_mask, scale[group] = self.tokenizer.encode(np.stack([rows[i] for i in group]))
            ids[group, -own_ids.shape[1] :], mask[group, -own_ids.shape[1] :] = own_ids, own_mask
        groups = self._together(rows)
        parts = []
        for group in groups:
            start = longest - int(self.tokenizer.use_eos) - max(lengths[i] for i in group)
            feed = {"input_ids": ids[group, start:], "attention_mask": mask[group, start:]}
            parts.append(self._encoder.run(feed))
        return _joined(groups, parts), scale


def draw_paths(
    run: DecoderRun, start: int, uniform: NDArray[np.float64], how: Sampling, tell: Any = None
) -> Ints:
    """Tokens ``[B, S, T]`` of a decoder run, drawn with given uniform numbers ``[B, S, T]``.

    Args:
        start: the token that the decoder begins with. tell: called with the number of steps done.
    """
    batch, samples, steps = uniform.shape
    drawn = np.empty((steps, batch, samples), np.int64)
    last = np.full((batch, 1), start, np.int64)
    for step in range(steps):
        logits = run.step(last)
        if logits.shape[1] != samples:
            logits = logits.repeat(samples, axis=1)
        last = drawn[step] = sampling.draw(logits, uniform[:, :, step], how)
        if tell is not None:
            tell(step + 1)
    return drawn.transpose(1, 2, 0)


def _joined(groups: Sequence[NDArray[np.intp]], parts: Sequence[Arrays]) -> Arrays:
    """Outputs ``[R, M, ..]`` of groups of rows as those of all ``[B, longest M, ..]``, 0 behind the shorter ones."""
    if len(parts) == 1:
        return parts[0]
    rows = sum(map(len, groups))
    out = {}
    for name, value in parts[0].items():
        longest = max(part[name].shape[1] for part in parts)
        out[name] = np.zeros((rows, longest, *value.shape[2:]), value.dtype)
        for group, part in zip(groups, parts, strict=True):
            out[name][group, : part[name].shape[1]] = part[name]
    return out
