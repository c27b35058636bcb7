"""The bundle: a folder with the exported model and a manifest that says what it is and lists its files."""

from tsmerge_export.bundle.hashes import sha256
from tsmerge_export.bundle.json_file import is_bundle
from tsmerge_export.bundle.manifest import FORMAT, FORMAT_VERSION, MANIFEST, Manifest
from tsmerge_export.bundle.opened import Bundle, ComponentInfo, TensorInfo, read_manifest
from tsmerge_export.bundle.output import check_output, recover
from tsmerge_export.bundle.report import Report
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.writer import BundleWriter

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "MANIFEST",
    "Bundle",
    "BundleWriter",
    "ComponentInfo",
    "Manifest",
    "Report",
    "Run",
    "TensorInfo",
    "check_output",
    "is_bundle",
    "read_manifest",
    "recover",
    "sha256",
]
