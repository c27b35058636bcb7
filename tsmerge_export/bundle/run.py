"""The arguments of an export, from which the commands on the page are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsmerge_export.typed import plain


@dataclass(frozen=True)
class Run:
    """What the user asked for, besides the model and the merge settings; None and 0 where nothing was.

    Attributes:
        output: name of the bundle's folder. opset: as given; what came of it is the bundle's own.
        data: the table's path. table: the flags that it was read with.
        target: the flags of a runtime beside ONNX Runtime. precision: those of one below float32.
        token_mask, protect_first, protect_last, inputs: of a graph from a file.
        providers: of ONNX Runtime, as the flag takes them. plugin: the library of native operators that was named.
        native: that of the environment, which stood in for functions of the files.
    """

    output: str = "bundle"
    opset: int | None = None
    data: str | None = None
    table: tuple[str, ...] = ()
    atol: float | None = None
    rtol: float | None = None
    threads: int | None = None
    seed: int = 0
    target: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()
    family: str | None = None
    config: str | None = None
    trust_remote_code: bool = False
    token_mask: str | None = None
    protect_first: int = 0
    protect_last: int = 0
    inputs: str | None = None
    providers: str | None = None
    plugin: str | None = None
    native: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as in ``report.json``."""
        content: dict[str, Any] = plain(self)
        return content
