"""The bundle: a folder with the exported model, written beside its place and renamed into it.

``manifest.json`` lists size and SHA-256 of every file. A bundle is either complete or not there: it is built in a
hidden folder, synced, and swapped in by rename (see :mod:`~tsmerge_export.files.beside`). Whatever kills the process,
the old bundle or the new one stands under the name. What is replaced is the bundle that was checked at the beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, entries, look, sweep
from tsmerge_export.files.paths import beside, is_inner_name, real_path

FORMAT = "tsmerge-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a component: numpy dtype name, and per dim a number or the name of a dynamic dim."""

    name: str
    dtype: str
    dims: tuple[str | int, ...]


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
    """A bundle on disk whose files match its manifest. Made by :meth:`open`."""

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
            UsageError: no bundle, a newer format, a name outside the folder, a file missing or changed.
        """
        path = Path(directory)
        recover(path)
        manifest = read_manifest(path)
        files = manifest.get("files")
        if not isinstance(files, dict) or not files:
            raise UsageError(f"{path / MANIFEST}: lists no files; export the bundle again")
        for name, entry in files.items():
            _check_file(path, name, entry, verify)
        try:
            components = tuple(_component(path, entry, files) for entry in manifest["components"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"{path / MANIFEST}: components are not described as expected; export it again"
            ) from None
        if not components:
            raise UsageError(f"{path / MANIFEST}: has no components; export the bundle again")
        return cls(real_path(path), manifest, components)

    @property
    def verdicts(self) -> dict[str, Any]:
        """The verdicts of the export (parity and cost), as in ``report.json``."""
        verdicts = self.manifest.get("verdicts")
        return verdicts if isinstance(verdicts, dict) else {}

    @property
    def report(self) -> dict[str, Any]:
        """The content of ``report.json``. Raises UsageError where the bundle has none that can be read."""
        try:
            report = json.loads(self.file("report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"{self.path / 'report.json'}: cannot be read; export the bundle again"
            ) from None
        return report if isinstance(report, dict) else {}

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


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``path``; format and version are checked, files are not.

    Raises:
        UsageError: not a bundle, unreadable, or of another format version.
    """
    file = path / MANIFEST
    if not path.is_dir():
        raise UsageError(
            f"{path}: {'not a folder' if path.exists() else 'no such folder'}; give a bundle's folder"
        )
    try:
        if file.stat().st_size > _MAX_MANIFEST_BYTES:
            raise UsageError(f"{file}: too large for a manifest")
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: not a bundle (no {MANIFEST})") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}: not valid JSON; export the bundle again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(f"{path}: not a bundle of tsmerge-export ({MANIFEST} has another format)")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"{path}: bundle format {manifest.get('format_version')!r}, this version reads {FORMAT_VERSION}; "
            "export it again or upgrade tsmerge-export"
        )
    return manifest


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is a folder with a manifest of ours, of any format version."""
    return _any_manifest(path) is not None


def _any_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_file(folder: Path, name: str, entry: Any, verify: bool) -> None:
    if not is_inner_name(name) or str(PurePosixPath(name)) == MANIFEST:
        raise UsageError(f"{folder / MANIFEST}: file name {name!r} leaves the bundle's folder")
    file = folder / name
    if beside(folder / MANIFEST, name) is None:
        raise UsageError(f"{file}: is a link that leaves the bundle's folder")
    if not file.is_file():
        raise UsageError(f"{file}: is missing from the bundle; export it again")
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("size"), int)
        or not isinstance(entry.get("sha256"), str)
    ):
        raise UsageError(f"{folder / MANIFEST}: no size and sha256 for {name}; export the bundle again")
    try:
        if verify and (file.stat().st_size != entry["size"] or sha256(file) != entry["sha256"]):
            raise UsageError(
                f"{file}: was changed after the export (size or SHA-256 differs); export the bundle again"
            )
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None


def _component(folder: Path, entry: Mapping[str, Any], files: Mapping[str, Any]) -> ComponentInfo:
    if entry["file"] not in files:
        raise UsageError(
            f"{folder / MANIFEST}: component file {entry['file']!r} is not among the listed files"
        )

    def tensors(items: Any) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(str(i["name"]), str(i["dtype"]), tuple(i["dims"])) for i in items)

    return ComponentInfo(
        name=str(entry["name"]),
        file=real_path(folder) / entry["file"],
        inputs=tensors(entry["inputs"]),
        outputs=tensors(entry["outputs"]),
        merges=tuple(entry.get("merges") or ()),
        barriers=tuple(entry.get("barriers") or ()),
    )


def check_output(output: str | Path, force: bool = False) -> Path:
    """Check, before any work, that a bundle can be written to ``output``. Makes missing parent folders.

    Args:
        force: allow replacing an existing bundle, or an empty folder; never anything else.

    Returns:
        The absolute path, links followed.

    Raises:
        UsageError: exists already, is no bundle or holds other files too, or cannot be written.
    """
    path = real_path(output)
    if not path.name:
        raise UsageError(f"-o {output}: is not a folder name")
    recover(path)
    if path.is_dir():
        other = _foreign(path)
        if not force:
            hint = "add --force to replace it" if other is None else "it is not a bundle; choose another name"
            raise UsageError(f"-o {output}: exists already; {hint}")
        if other is not None and is_bundle(path):
            raise UsageError(
                f"-o {output}: holds {other}, which is not part of the bundle and would be lost with --force; "
                "move it away, or choose another name"
            )
        if other is not None:
            raise UsageError(
                f"-o {output}: exists and is not a bundle, --force does not replace it; choose another name"
            )
    elif path.exists():
        raise UsageError(f"-o {output}: is a file; give the name of a folder to make")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {output}: its folder {path.parent} cannot be made ({error.strerror})") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"-o {output}: no permission to write in {path.parent}")
    return path


def _foreign(path: Path) -> str | None:
    """The first file in a folder that no export has put there; None in an empty folder and in a plain bundle.

    An engine that the bundle's own script builds beside a model counts as the bundle's.
    """
    manifest = _any_manifest(path)
    if manifest is None:
        return next((name for name, _ in entries(path)), None)
    files = manifest.get("files")
    known = {MANIFEST, *(files if isinstance(files, dict) else ())}
    found = (name for name, entry in entries(path) if not entry.is_dir() or entry.is_symlink())
    return next(
        (n for n in found if n not in known and n.removesuffix(".engine") + ".onnx" not in known), None
    )


def recover(path: Path) -> None:
    """Put an old bundle back that a killed run had moved aside.

    Only systems without an atomic exchange of two folders have such a moment; see :mod:`~tsmerge_export.files.beside`.
    """
    if path.name and not path.exists():
        sweep(path.parent, path.name)


class BundleWriter:
    """Context manager that builds a bundle beside its place.

    ``with BundleWriter(output, force) as writer:`` write the files into ``writer.path``, then call
    ``writer.commit(manifest)``. Without a commit, or on any exception (KeyboardInterrupt too), nothing is left and
    an old bundle stays as it was. ``writer.scratch`` is a folder for files that are not part of the bundle; like
    ``writer.path`` it is removed in any case, after a kill by the next run in that folder.
    """

    def __init__(self, output: str | Path, force: bool = False) -> None:
        self._asked = output
        self.output = check_output(output, force)
        self._seen = look(self.output)
        check_output(output, force)  # again, so that what was seen is what was checked
        self._beside = Beside(self.output)
        self.path = self._beside.new
        self.scratch = self._beside.scratch

    def __enter__(self) -> BundleWriter:
        try:
            self._beside.__enter__()
            self.path.mkdir()
        except OSError as error:
            self._beside.__exit__(None, None, None)
            raise UsageError(
                f"-o {self._asked}: cannot write in {self.output.parent} ({error.strerror})"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._beside.__exit__(kind, error, traceback)

    def commit(self, manifest: Mapping[str, Any]) -> Bundle:
        """Write the manifest with size and SHA-256 of every file, and move the folder into place.

        Args:
            manifest: family, merge, components, ...; ``format``, ``format_version`` and ``files`` are set here.

        Returns:
            The bundle under its final name.

        Raises:
            UsageError: the disk is full, or someone else wrote to ``output`` meanwhile (what they wrote stays).
        """
        names = sorted(f.relative_to(self.path).as_posix() for f in self.path.rglob("*") if f.is_file())
        files = {
            name: {"size": (self.path / name).stat().st_size, "sha256": sha256(self.path / name)}
            for name in names
            if name != MANIFEST
        }
        whole = {**manifest, "format": FORMAT, "format_version": FORMAT_VERSION, "files": files}
        try:
            text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
            (self.path / MANIFEST).write_text(text, encoding="utf-8")
            fsync_tree(self.path)
            self._beside.put(self._seen)
            fsync_tree(self.output.parent, recurse=False)
        except ChangedError as error:
            raise UsageError(f"-o {self._asked}: {_came(error, self.output)}; no bundle is written") from None
        except OSError as error:
            raise UsageError(f"-o {self._asked}: cannot be written ({error.strerror})") from error
        return Bundle.open(self.output, verify=False)


def _came(error: ChangedError, path: Path) -> str:
    """What came to stand under a bundle's name while it was made."""
    if error.kept is not None:
        return f"was made by someone else meanwhile; theirs is kept in {error.kept}"
    if is_bundle(path):
        return "a bundle was made or changed there by someone else meanwhile, and stays"
    return f"a {error.seen.kind} that is not a bundle was put there by someone else meanwhile, and stays"
