"""A bundle on disk, opened: its files match its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tsmerge_export.bundle.hashes import check_file
from tsmerge_export.bundle.json_file import manifest_content, read_json
from tsmerge_export.bundle.manifest import MANIFEST, ComponentEntry, Manifest, TensorInfo, manifest_of
from tsmerge_export.bundle.output import recover
from tsmerge_export.bundle.report import REPORT, Report, report_of
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UsageError
from tsmerge_export.files.paths import real_path
from tsmerge_export.settings.config import MergeConfig


@dataclass(frozen=True)
class ComponentInfo:
    """One exported graph of a bundle, as the manifest describes it.

    Attributes:
        file: absolute path of the ONNX file.
        merges, barriers: the rewriter's account, one dict each.
    """

    name: str
    file: Path
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    merges: tuple[dict[str, Any], ...]
    barriers: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        inputs, outputs = (tuple(one.name for one in side) for side in (self.inputs, self.outputs))
        return called(
            "ComponentInfo", self.name, self.file, inputs=inputs, outputs=outputs,
            merges=len(self.merges), barriers=len(self.barriers),
        )  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files match its manifest. Made by :meth:`open`.

    Attributes:
        manifest: as it is written. :attr:`contents` is the same, typed.
    """

    path: Path
    manifest: dict[str, Any]
    components: tuple[ComponentInfo, ...]

    def __repr__(self) -> str:
        merge = self.manifest.get("merge")
        said = (self.manifest.get("family"), merge.get("method") if isinstance(merge, dict) else None)
        # A file from elsewhere may say anything.
        family, method = (word if isinstance(word, str) else None for word in said)
        names = tuple(one.name for one in self.components)
        return called("Bundle", self.path, family=family, merge=method, components=names)

    @classmethod
    def open(cls, directory: str | Path, *, verify: bool = True) -> Bundle:
        """Read a bundle and check it.

        Args:
            directory: the bundle's folder.
            verify: compare size and SHA-256 of every file; without it only names and presence.

        Raises:
            UsageError: no bundle, a format or a field that cannot be read, a name outside the folder, a file missing
                or changed.
        """
        path = Path(directory)
        recover(path)
        content = manifest_content(path)
        contents = manifest_of(content, path / MANIFEST)
        if not contents.files:
            raise UsageError(f"{path / MANIFEST}: lists no files; export the bundle again")
        for name, entry in contents.files.items():
            check_file(path, name, entry, verify)
        if not contents.components:
            raise UsageError(f"{path / MANIFEST}: has no components; export the bundle again")
        components = tuple(
            _component(path, entry, written, contents.files)
            for entry, written in zip(contents.components, content["components"], strict=True)
        )
        return cls(real_path(path), content, components)

    @cached_property
    def contents(self) -> Manifest:
        """The manifest, every field of it typed and checked."""
        return manifest_of(self.manifest, self.path / MANIFEST)

    @property
    def merge(self) -> MergeConfig:
        """What was merged. Raises UsageError for settings that this version does not know."""
        try:
            return self.contents.setting
        except UsageError as error:
            raise UsageError(f"{self.path / MANIFEST}: {error}") from None

    @property
    def verdicts(self) -> dict[str, Any]:
        """The verdicts of the export (parity and cost), as in ``report.json``."""
        verdicts = self.manifest.get("verdicts")
        return verdicts if isinstance(verdicts, dict) else {}

    @property
    def report(self) -> dict[str, Any]:
        """The content of ``report.json``. Raises UsageError where the bundle has none that can be read."""
        try:
            report = read_json(self.file(REPORT))
        except FileNotFoundError:
            raise UsageError(f"{self.path / REPORT}: is missing from the bundle; export it again") from None
        return report if isinstance(report, dict) else {}

    def read_report(self) -> Report:
        """``report.json``, typed. Raises UsageError where the bundle has none that can be read."""
        return report_of(self.report, self.path / REPORT)

    def file(self, name: str) -> Path:
        """Absolute path of a file that the manifest lists. Raises UsageError for any other."""
        if name not in self.manifest["files"]:
            raise UsageError(f"{self.path / MANIFEST}: {name!r} is not among the listed files")
        return self.path / name

    def component(self, name: str) -> ComponentInfo:
        """The component called ``name``. Raises UsageError when there is none."""
        for component in self.components:
            if component.name == name:
                return component
        raise UsageError(
            f"{self.path}: has no component {name!r}; it has {', '.join(c.name for c in self.components)}"
        )


def _component(
    folder: Path, entry: ComponentEntry, written: Mapping[str, Any], files: Mapping[str, Any]
) -> ComponentInfo:
    if entry.file not in files:
        raise UsageError(f"{folder / MANIFEST}: component file {entry.file!r} is not among the listed files")
    return ComponentInfo(
        entry.name, real_path(folder) / entry.file, entry.inputs, entry.outputs,
        tuple(written.get("merges") or ()), tuple(written.get("barriers") or ()),
    )  # fmt: skip


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``path`` as it is written; every field of it is checked, its files are not.

    Raises:
        UsageError: not a bundle, unreadable, of another format version, or a field of another type.
    """
    content = manifest_content(path)
    manifest_of(content, path / MANIFEST)
    return content
