"""The tokenizer in numpy equals upstream's in PyTorch, bit for bit."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from chronos.chronos import ChronosConfig
from numpy.typing import NDArray

from tests.models import T5
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast.tokenizer import MeanScaleTokenizer, nansum, settings_of

CONFIGS = {
    "published": {"n_tokens": 4096, "context_length": 512},
    "coarse": {"n_tokens": 64, "context_length": 128, "use_eos_token": False},
    "skewed": {"n_tokens": 1000, "context_length": 300, "n_special_tokens": 3,
               "tokenizer_kwargs": {"low_limit": -7.3, "high_limit": 11.1}},
}  # fmt: skip


def both(name: str) -> tuple[object, MeanScaleTokenizer]:
    config = ChronosConfig(**{**T5["chronos_config"], **CONFIGS[name]})
    theirs = config.create_tokenizer()
    settings = settings_of(theirs.centers.numpy(), vars(config))  # type: ignore[attr-defined]
    return theirs, MeanScaleTokenizer.from_dict(json.loads(json.dumps(settings)))


def corpus(length: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(length)
    noise = rng.standard_normal((300, length))
    gaps = np.where(rng.random(noise.shape) < 0.3, np.nan, noise)
    left = np.where(np.arange(length) < rng.integers(0, length + 1, (300, 1)), np.nan, noise)
    whole = [
        noise, noise.cumsum(1), gaps, left, np.exp(5 * noise), np.round(noise),
        noise * 1e-38, noise * 1e-42, noise * 1e37, np.sign(noise) * 3e38, 1e-45 * np.ones_like(noise),
        np.zeros_like(noise), np.full_like(noise, 7.7), np.full_like(noise, np.nan), np.full_like(noise, -1e-30),
        np.where(rng.random(noise.shape) < 0.01, np.inf, noise),
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return np.concatenate(whole).astype(np.float32)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 33, 127, 511, 512, 700])
@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_scale_and_values_equal_upstream(name: str, length: int) -> None:
    theirs, ours = both(name)
    series = corpus(length)
    want = theirs.context_input_transform(torch.from_numpy(series.copy()))  # type: ignore[attr-defined]
    got = ours.encode(series)
    for ours_part, theirs_part in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours_part, theirs_part.numpy())
    assert got[0].dtype == got[1].dtype == np.int64
    assert got[2].dtype == np.float32
    tokens = np.random.default_rng(0).integers(0, CONFIGS[name]["n_tokens"], (len(series), 2, 5))
    values = theirs.output_transform(torch.from_numpy(tokens), want[2]).numpy()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(ours.decode(tokens, got[2]), values)


@pytest.mark.parametrize("length", [1, 3, 8, 15, 31, 64, 100, 512, 1000, 2049, 5000])
def test_sum_is_rounded_as_pytorch_rounds_it(length: int) -> None:
    rng = np.random.default_rng(length)
    values = (rng.standard_normal((50, length)) * 10.0 ** rng.integers(-3, 4, (50, length))).astype(
        np.float32
    )
    values[rng.random(values.shape) < 0.1] = np.nan
    np.testing.assert_array_equal(nansum(values), torch.nansum(torch.from_numpy(values), -1).numpy())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"class": "Other"}, "tokenizer 'Other' is not known"),
        ({"n_tokens": None}, "incomplete"),
        ({"centers": "not base64!"}, "incomplete"),
        ({"centers": base64.b64encode(b"12345").decode()}, "incomplete"),
    ],
)
def test_bad_settings_are_one_line(change: dict[str, object], match: str) -> None:
    theirs, _ = both("coarse")
    settings = settings_of(theirs.centers.numpy(), T5["chronos_config"]) | change  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=match):
        MeanScaleTokenizer.from_dict(settings)
