"""Where ONNX Runtime runs: its execution providers, and the library of native operators that goes with them.

One value goes from the command line to every session that is proved or timed. What only looks at a graph (its sizes,
its FLOPs, the reference of a graph from a file) runs on the CPU wherever that is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.chosen import with_default
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UsageError, first_line

if TYPE_CHECKING:
    import onnxruntime

    from tsmerge_export.backends import Providers

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

#: Short names of providers; any other is given in full.
SHORT = {name.removesuffix("ExecutionProvider").lower(): name for name in (CPU, CUDA, TENSORRT)}

#: A provider as ONNX Runtime takes it.
Entry = str | tuple[str, dict[str, Any]]


def name_of(entry: Any) -> Any:
    """The name of one provider, with options or without."""
    return entry[0] if isinstance(entry, (tuple, list)) and entry else entry


def names(providers: Sequence[Any]) -> list[Any]:
    """Their names, without the options."""
    return [name_of(entry) for entry in providers]


def installed() -> Any:
    """The package. Raises MissingDependencyError."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(how_to_install("onnxruntime")) from None
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def check_providers(providers: Providers | None) -> list[Entry]:
    """The providers to use, default the CPU.

    Raises:
        UsageError: not a list of names or (name, options).
        MissingDependencyError: the installed ONNX Runtime does not have one of them.
    """
    if providers is None:
        return [CPU]
    chosen = [providers] if isinstance(providers, str) else list(providers)
    available = installed().get_available_providers()
    for entry in chosen:
        pair = isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[1], Mapping)
        name = entry[0] if pair else entry
        if not isinstance(name, str):
            raise UsageError(f"providers: {entry!r} is neither a provider's name nor (name, options)")
        if name not in available:
            raise MissingDependencyError(
                f"provider {name} is not in this ONNX Runtime; it has {', '.join(available)}"
            )
    if not chosen:
        raise UsageError("providers is empty; leave it out for the CPU")
    return [entry if isinstance(entry, str) else (entry[0], dict(entry[1])) for entry in chosen]


@dataclass(frozen=True)
class Place:
    """Where sessions run.

    Attributes:
        names: of the providers, in order of preference.
        options: of each of them, as pairs.
        plugin: the library of native operators for them; None is what the environment names or has installed,
            :data:`.native.NONE` none.
    """

    names: tuple[str, ...] = (CPU,)
    options: tuple[tuple[tuple[str, Any], ...], ...] = ((),)
    plugin: Path | None = None

    @classmethod
    def of(cls, providers: Providers | None = None, plugin: str | Path | None = None) -> Place:
        """The place that arguments of the library name; by default the CPU.

        Raises:
            UsageError: not a list of providers, or a library that goes with none of them.
            MissingDependencyError: ONNX Runtime does not have one of them, or the library does not exist.
        """
        place = cls._made(check_providers(providers), plugin)
        if place.plugin is not None and place.plugin != native.NONE:
            library = native.for_providers(place.names)
            if library is None:
                raise UsageError(
                    f"plugin has no effect unless {CUDA} is the first of providers, or {CPU} the only one"
                )
            native.find_library(place.plugin, library)
        return place

    @classmethod
    def _made(cls, entries: Sequence[Entry], plugin: str | Path | None) -> Place:
        options = [{} if isinstance(one, str) else one[1] for one in entries]
        pairs = tuple(tuple(sorted(one.items())) for one in options)
        return cls(tuple(names(entries)), pairs, None if plugin is None else Path(plugin))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Place:
        """The inverse of :meth:`to_dict`."""
        return cls._made(content["providers"], content["plugin"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for another process; also the arguments of :meth:`of`."""
        plugin = self.plugin.resolve() if self.plugin is not None and self._given else self.plugin
        return {"providers": self.providers, "plugin": None if plugin is None else str(plugin)}

    @property
    def providers(self) -> list[Entry]:
        """As ONNX Runtime takes them."""
        return [
            (name, dict(pairs)) if pairs else name
            for name, pairs in zip(self.names, self.options, strict=True)
        ]

    @property
    def _given(self) -> bool:
        """Whether :attr:`plugin` is a file."""
        return self.plugin is not None and self.plugin != native.NONE

    @property
    def on_cpu(self) -> bool:
        """Whether all of it runs on the CPU's provider."""
        return set(self.names) == {CPU}

    def exact(self) -> Place:
        """The same for a verdict in float32: CUDA's provider without TF32, unless its options say otherwise.

        TF32 keeps 10 bits of a float32's 23 in products. Its error is that of the card, of the same size in the
        unmerged file, and beyond any tolerance that would still find a fault.
        """
        options = tuple(
            tuple(sorted(({"use_tf32": "0"} | dict(pairs)).items())) if name == CUDA else pairs
            for name, pairs in zip(self.names, self.options, strict=True)
        )
        return replace(self, options=options)

    def native_library(self) -> Path | None:
        """The library whose operators run here, if any. Raises MissingDependencyError: it does not exist."""
        found = native.for_providers(self.names)
        return None if found is None else native.find_library(self.plugin, found)

    def native_operators(self) -> tuple[str, ...]:
        """Which operators of domain ``tsmerge`` that library runs. Raises MissingDependencyError: it does not exist."""
        found = native.for_providers(self.names)
        return () if found is None or self.native_library() is None else found.operators

    def without_library(self, what: str) -> Place:
        """The same where a library must not run: what is proved there are other bodies of the same operators. That of
        an installed wheel, which nobody asked for, is left aside.

        Args:
            what: flags or a form of files, for the message.

        Raises:
            UsageError: flag or environment name one.
        """
        if self._given:
            raise UsageError(
                f"--plugin has no effect with {what}, whose operators are other ones; leave it out"
            )
        found = native.for_providers(self.names)
        named = None if found is None or self.plugin is not None else os.environ.get(found.variable)
        if found is not None and named and Path(named) != native.NONE:
            raise UsageError(
                f"{found.variable} has no effect with {what}, whose operators are other ones; unset it"
            )
        return replace(self, plugin=native.NONE)

    def start(
        self,
        kind: type[onnxruntime.InferenceSession],
        source: str | bytes,
        options: onnxruntime.SessionOptions,
    ) -> onnxruntime.InferenceSession:
        """A session of a class, with the library where there is one; of a file whose ratio is chosen at run time, one
        that chooses the file's own where it is given none.

        Raises:
            MissingDependencyError: the first provider did not start, where ONNX Runtime would go on without it; or
                a library is needed, and none or another version is there.
            UnsupportedError: it cannot load the library. What ONNX Runtime raises for the model.
        """
        native.register(options, self.plugin, self.names, source)
        try:
            session = kind(source, options, providers=self.providers)
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            missing = native.lacking(first_line(error), self.names)
            if missing is None:
                raise
            raise MissingDependencyError(f"{native.said(source)}: {missing}") from error
        if self.names[0] not in session.get_providers():
            raise MissingDependencyError(
                f"ONNX Runtime could not start {self.names[0]}: its libraries or its device are missing; "
                "install them, or choose another of providers"
            )
        return with_default(session)

    def try_out(self) -> None:
        """Start a session of nothing much, where a slow step comes before the first one.

        Raises:
            MissingDependencyError: the provider does not start. UnsupportedError: ONNX Runtime cannot load the library.
        """
        import onnxruntime as ort
        from onnx import TensorProto, helper

        if self == HERE and self.native_library() is None:
            return
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.start(ort.InferenceSession, model.SerializeToString(), options)

    def versions(self) -> dict[str, str]:
        """Name and content of the library that runs here, for the versions of a bundle."""
        path = self.native_library()
        return {} if path is None else {native.NATIVE: native.description(path)}

    def run_entry(self) -> dict[str, Any]:
        """What the commands of a report need to run there again: providers and plugin as flags take them, and where
        the library of the environment is."""
        found: dict[str, Any] = {}
        if not self.on_cpu:
            short = {name: word for word, name in SHORT.items()}
            found["providers"] = ",".join(short.get(name, name) for name in self.names)
        library = self.native_library()
        if library is not None:
            # The flag is what says it off the CPU, and where it was given.
            found["native" if self.plugin is None and self.on_cpu else "plugin"] = str(library)
        return found

    def __str__(self) -> str:
        return "ONNX Runtime on the CPU" if self.on_cpu else f"ONNX Runtime with {', '.join(self.names)}"


def place_words(manifest: Mapping[str, Any]) -> str:
    """Where the verdicts of a bundle were taken; older bundles were proved on the CPU."""
    return str(Place(tuple(manifest.get("providers") or (CPU,)), ()))


#: The CPU, and the library that the environment names or has installed for it.
HERE = Place()
