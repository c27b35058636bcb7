"""How engines of TensorRT are built from a bundle where there is a GPU: commands, and a script in the bundle."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tsmerge_export.backends.engines.profile import Profile

NAME = "build_engine.py"


def commands(model: str, profile: Profile) -> dict[str, str]:
    """One command of trtexec and one of Polygraphy that build the engine, run in the bundle's folder."""
    engine = model.removesuffix(".onnx") + ".engine"
    flags = ("min", "opt", "max")
    ranges = {which: shlex.quote(profile.flag(number)) for number, which in enumerate(flags)}
    by_name = {
        which: " ".join(
            shlex.quote(f"{name}:[{','.join(map(str, shapes[number]))}]")
            for name, shapes in profile.shapes.items()
        )
        for number, which in enumerate(flags)
    }
    return {
        "trtexec": f"trtexec --onnx={model} --stronglyTyped --dynamicPlugins=libtsmerge_trt.so "
        + " ".join(f"--{which}Shapes={text}" for which, text in ranges.items())
        + f" --saveEngine={engine}",
        "polygraphy": f"polygraphy convert {model} --convert-to trt --strongly-typed --plugins libtsmerge_trt.so "
        + " ".join(f"--trt-{which}-shapes {text}" for which, text in by_name.items())
        + f" -o {engine}",
    }


def text(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """``build_engine.py`` of a bundle: needs tensorrt, polygraphy and the plugin library, nothing of this package."""
    models = {entry["onnx"]: entry["profile"] for entry in entries.values()}
    return f'''"""Builds the engines of this folder: python {NAME} libtsmerge_trt.so

Needs a GPU, TensorRT 10 or 11 with its Python package, polygraphy, and the plugin library built for that TensorRT.
"""

import pathlib
import sys

import tensorrt as trt
from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, Profile, SaveEngine

MODELS = {models!r}

if len(sys.argv) != 2:
    sys.exit("usage: python {NAME} libtsmerge_trt.so")
registry = trt.get_plugin_registry()
registry.load_library(str(pathlib.Path(sys.argv[1]).resolve()))
if registry.get_creator("LocalMerge", "1", "") is None:
    sys.exit(sys.argv[1] + ": holds no plugin LocalMerge, or is built for another major version of TensorRT")
folder = pathlib.Path(__file__).resolve().parent
for model, shapes in MODELS.items():
    profile = Profile()
    for name, sizes in shapes.items():
        profile.add(name, min=sizes["min"], opt=sizes["opt"], max=sizes["max"])
    network = NetworkFromOnnxPath(str(folder / model), strongly_typed=True)
    engine = EngineFromNetwork(network, config=CreateConfig(profiles=[profile]))
    SaveEngine(engine, path=str(folder / model.replace(".onnx", ".engine")))()
'''
