"""How the tests of loading say what must happen."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from tsmerge_export.checkpoint import load_model
from tsmerge_export.errors import TsmergeError


def fails(kind: type[TsmergeError], match: str, *args: Any, **kwargs: Any) -> None:
    """Loading fails with one line that names what is wrong."""
    with pytest.raises(kind, match=match) as caught:
        load_model(*args, **kwargs)
    assert "\n" not in str(caught.value)


def same(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)
