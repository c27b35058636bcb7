"""Flags of the model: where it is, how it is loaded, and what a graph does not tell about its tokens."""

from __future__ import annotations

import argparse

from tsmerge_export.cli.readers import whole


def add_model(parser: argparse.ArgumentParser) -> None:
    """The argument that names a model."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder with config.json and safetensors, hub id or .pt file; or any .onnx or .pt2 file",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The flags of loading a model."""
    group = parser.add_argument_group("model")
    group.add_argument("--family", metavar="NAME", help="model family; default: found from the config")
    group.add_argument(
        "--config", metavar="FILE", help="config.json for a .pt file that holds a bare state_dict"
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="accept a config that refers to code of its own (auto_map)",
    )


def add_graph_options(parser: argparse.ArgumentParser) -> None:
    """The flags of what a file does not tell about its tokens."""
    group = parser.add_argument_group("graph", "for .onnx and .pt2 files")
    group.add_argument(
        "--token-mask",
        metavar="NAME",
        help="input [batch, tokens] that is 0 where a token is padding; default: attention_mask, if it fits; or none",
    )
    group.add_argument(
        "--protect-first", type=whole(0), default=0, metavar="N", help="special tokens in front, such as CLS"
    )
    group.add_argument(
        "--protect-last", type=whole(0), default=0, metavar="N", help="special tokens at the end"
    )
    group.add_argument("--inputs", metavar="FILE", help=".npz with an example of every input")
