"""Whole models and their exports, made once per test session."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import onnx_ir as ir
from torch import nn

from tests.exports import export_component
from tests.models import tiny
from tsmerge_export import demo
from tsmerge_export.bundle import BundleWriter
from tsmerge_export.bundle.manifest import Described
from tsmerge_export.checkpoint import load_model
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.shared_weights import share
from tsmerge_export.families import get
from tsmerge_export.families.base import Component, Family
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.built import Built

FAMILY: Mapping[str, str] = {
    "bolt-nano": "chronos-bolt",
    "t5-nano": "chronos-t5",
    "bolt-tiny": "chronos-bolt",
    "t5-tiny": "chronos-t5",
}
"""The trained models that ship, and tiny ones with random weights."""

_TRAINED = {"bolt-nano": demo.CHRONOS_BOLT, "t5-nano": demo.CHRONOS_T5}
_FOLDER = tempfile.TemporaryDirectory(prefix="tsmerge-tests-")


def family(name: str) -> Family:
    """The family of a model of :data:`FAMILY`."""
    return get(FAMILY[name])


@cache
def model(name: str) -> nn.Module:
    """The original eager module; tests must not change it."""
    return load_model(_TRAINED[name]).model if name in _TRAINED else tiny(FAMILY[name], seed=3).eval()


def component(name: str) -> Component:
    """The first component of the model, the one that merges."""
    return family(name).components(model(name))[0]


@cache
def plain(name: str, opset: int = 18, index: int = 0) -> ir.Model:
    """The export without merging of one of the model's components, as the rewriter gets it."""
    return export_component(family(name).components(model(name))[index], model(name), opset=opset)


@cache
def built(name: str, merge: MergeConfig, inline: bool = False) -> Built:
    """The files of one merge setting."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    return merge_and_lower(component(name), plain(name), merge, inline=inline, folder=folder, scratch=folder)


@cache
def bundle(name: str, merge: MergeConfig) -> Path:
    """A bundle of all components, as an export writes it, without verdicts."""
    core, output = model(name), Path(tempfile.mkdtemp(dir=_FOLDER.name)) / "bundle"
    with BundleWriter(output) as writer:
        parts = [
            merge_and_lower(
                part, plain(name, 18, index), merge, inline=False, folder=writer.path, scratch=writer.scratch
            )
            for index, part in enumerate(family(name).components(core))
        ]
        share([part.merged for part in parts], writer.path)
        described = Described(
            family=FAMILY[name],
            merge=merge.to_dict(),
            components=tuple(part.entry() for part in parts),
            pipeline=family(name).pipeline(core),
        )
        return writer.commit(described).path
