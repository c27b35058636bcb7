"""What a compression writes: a checkpoint in the family's own format, and the record of how it came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tsmerge_export.bundle.compression import Compression
from tsmerge_export.checkpoint.model_folder import write_model_folder
from tsmerge_export.checkpoint.recorded_folder import RecordedFolder
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.compress.compress import Compressed, Wanted, sizes
from tsmerge_export.tools.tune.contender import Contender
from tsmerge_export.typed import plain

#: Of the folder.
RECORD = "compression.json"
FOLDER = RecordedFolder(RECORD, "compression")


def record_of(
    found: Compressed,
    base: Contender,
    merge: MergeConfig,
    wanted: Wanted,
    *,
    data: str | None,
    table: Sequence[str],
    batch: int,
    windows: int,
    checkpoint: str,
    output: str,
) -> Compression:
    """What ``report.json`` says of a compression.

    Args:
        data, table: the file and the flags that say how it is read. batch: series per timed call. windows: at most so
            many per column. checkpoint, output: the folders, as far as they are written.
    """
    return Compression(
        source=base.name,
        merge=merge.to_dict(),
        metric=wanted.metric,
        max_increase_percent=wanted.max_increase,
        asked=wanted.steps,
        steps=found.steps,
        kinds=wanted.kinds,
        tried=found.tried,
        data=data,
        table=tuple(table),
        columns=tuple(base.validation.columns),
        windows=windows,
        context=int(base.validation.context.shape[-1]),
        batch=batch,
        threads=base.checks.threads,
        seed=base.checks.seed,
        checkpoint=Path(checkpoint).name if found.smaller else None,
        output=Path(output).name,
    )


def write(found: Compressed, base: Contender, record: Compression, folder: str, force: bool) -> Compression:
    """Write the checkpoint. Returns the record with the sizes of the weights.

    Raises:
        UsageError: it cannot be written.
    """
    config = base.source.loaded.config
    with TemporaryDirectory(prefix="tsmerge-compress-") as scratch:
        packed = []
        for name, model in (("original", base.source.model), ("compressed", found.model)):
            place = Path(scratch) / name
            place.mkdir()
            write_model_folder(model, config, place)
            packed.append(sizes(sorted(place.glob("*.safetensors"))))
    (before, before_packed), (after, after_packed) = packed
    record = replace(
        record, original_bytes=before, original_gzip_bytes=before_packed, checkpoint_bytes=after,
        checkpoint_gzip_bytes=after_packed,
    )  # fmt: skip
    FOLDER.write(folder, found.model, config, plain(record), force)
    return record
