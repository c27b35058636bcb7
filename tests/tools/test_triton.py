"""``tsmerge triton``: read by Triton's own definitions, run as its back end does, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests import artefacts
from tests.cli.said import Capture, error_of
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.cli import main
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.triton import Serving, write
from tsmerge_export.tools.triton.config import config, signature
from tsmerge_export.tools.triton.repository import warm_shapes


@pytest.fixture(scope="session")
def definitions() -> Any:
    """The module of Triton's messages; of its package nothing else is imported, which would need a client's parts."""
    try:
        files = metadata.files("tritonclient") or []
    except metadata.PackageNotFoundError:
        pytest.skip("no definitions of Triton's messages (pip install --no-deps tritonclient)")
    (file,) = [one for one in files if str(one) == "tritonclient/grpc/model_config_pb2.py"]
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(file.locate()))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(definitions: Any, text: str) -> Any:
    """A configuration as Triton reads it; an unknown field or a wrong type is an error."""
    from google.protobuf import text_format

    return text_format.Parse(text, definitions.ModelConfig())


@pytest.fixture(scope="session")
def bolt() -> Path:
    """A merged bundle of one component; its folder is called bundle."""
    return artefacts.bundle("bolt-tiny", MergeConfig(ratio="1/4"))


def test_a_model_of_the_repository(definitions: Any, bolt: Path, tmp_path: Path, capsys: Capture) -> None:
    """Names, types and dims are those of the file, whose batch Triton keeps; the file runs at the warm-up's shape."""
    repository = tmp_path / "repository"
    assert main(["triton", str(bolt), "-o", str(repository), "--threads", "2", "--instances", "3"]) == 0
    folder = repository / "bundle"
    assert capsys.readouterr().out == f"{folder}\n"
    found = read(definitions, (folder / "config.pbtxt").read_text())
    session = ort.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    (series,), (quantiles,) = session.get_inputs(), session.get_outputs()
    assert (found.name, found.backend, found.max_batch_size) == ("bundle", "onnxruntime", 64)
    (taken,), (given,) = found.input, found.output
    assert (taken.name, list(taken.dims)) == (series.name, [-1])
    assert (given.name, list(given.dims)) == (quantiles.name, quantiles.shape[1:])
    assert taken.data_type == given.data_type == definitions.TYPE_FP32
    assert found.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(one.count, one.kind) for one in found.instance_group] == [
        (3, definitions.ModelInstanceGroup.KIND_CPU)
    ]
    assert found.parameters["intra_op_thread_count"].string_value == "2"
    assert not found.model_operations.op_library_filename
    (warm,) = found.model_warmup
    shape = [warm.batch_size, *warm.inputs["context"].dims]
    assert session.run(None, {"context": np.zeros(shape, np.float32)})[0].shape == (1, *given.dims)


def test_a_library_is_named_where_the_server_sees_it(
    definitions: Any, bolt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libtsmerge_ort_cuda.so"
    library.write_bytes(b"for a GPU: not opened here")
    arguments = ["--gpu", "--plugin", str(library), "--mounted-at", "/models", "--name", "merged"]
    assert main(["triton", str(bolt), "-o", str(tmp_path / "r"), *arguments]) == 0
    found = read(definitions, (tmp_path / "r" / "merged" / "config.pbtxt").read_text())
    assert list(found.model_operations.op_library_filename) == ["/models/merged/libtsmerge_ort_cuda.so"]
    assert (tmp_path / "r" / "merged" / library.name).read_bytes() == library.read_bytes()
    assert found.instance_group[0].kind == definitions.ModelInstanceGroup.KIND_GPU


@pytest.mark.parametrize("merge", ["dynamic", "runtime"])
def test_requests_are_joined_only_where_rows_do_not_meet(
    definitions: Any, merge: str, tmp_path: Path
) -> None:
    """Dynamic merging counts over a batch; a ratio is one number for all rows."""
    settings = {"dynamic": MergeConfig("dynamic", threshold=0.5), "runtime": MergeConfig(ratio="runtime:1/4")}
    bundle = artefacts.bundle("bolt-tiny", settings[merge])
    folder, notes = write(Bundle.open(bundle), tmp_path / "r", Serving("model"))
    found = read(definitions, (folder / "config.pbtxt").read_text())
    assert not found.HasField("dynamic_batching")
    assert len(notes) == 1 and notes[0].startswith("requests are not joined: ")
    if merge == "dynamic":
        assert found.max_batch_size == 64
    else:
        assert found.max_batch_size == 0
        assert [list(one.dims) for one in found.input] == [[-1, -1], [1]]
        assert found.input[1].HasField("reshape") and not found.input[1].reshape.shape


def test_a_fixed_batch_and_other_types(definitions: Any) -> None:
    series, mask = TensorInfo("x", "float32", (8, "length")), TensorInfo("mask", "bool", (8, "length"))
    found = signature([series, mask], [TensorInfo("y", "int64", (8, 3))], joined=True)
    text = config(found, Serving("one", threads=1), {"x": (8, 40), "mask": (8, 40)})
    said = read(definitions, text)
    assert said.max_batch_size == 0 and not said.HasField("dynamic_batching")
    assert [list(one.dims) for one in (*said.input, *said.output)] == [[8, -1], [8, -1], [8, 3]]
    assert (
        said.input[1].data_type == definitions.TYPE_BOOL
        and said.output[0].data_type == definitions.TYPE_INT64
    )
    warm = said.model_warmup[0].inputs
    assert list(warm["x"].dims) == [8, 40] and warm["x"].random_data and warm["mask"].zero_data
    with pytest.raises(UnsupportedError, match="no type for complex64"):
        signature([TensorInfo("x", "complex64", ("batch",))], [], joined=True)


def test_what_stands_there_is_kept(bolt: Path, tmp_path: Path, capsys: Capture) -> None:
    """A model of this command is replaced with --force; what anything else wrote never."""
    arguments = ["triton", str(bolt), "-o", str(tmp_path)]
    assert main(arguments) == 0
    capsys.readouterr()
    assert "add --force" in error_of(capsys, main(arguments), 2)
    config_file = tmp_path / "bundle" / "config.pbtxt"
    config_file.write_text(config_file.read_text() + "# mine\n")
    assert main([*arguments, "--force"]) == 0
    assert "# mine" not in config_file.read_text()
    (tmp_path / "bundle" / "2").mkdir()
    capsys.readouterr()
    assert "no tsmerge triton has written" in error_of(capsys, main([*arguments, "--force"]), 2)
    assert (tmp_path / "bundle" / "2").is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--name", "../up"], 2, "--name ../up"),
        (["--mounted-at", "/models"], 2, "no effect without --plugin"),
        (["--plugin", "none.so"], 4, "does not exist"),
        (["--max-batch-size", "0"], 2, "--max-batch-size"),
        (["--instances", "9" * 12], 2, "--instances"),
        (["--name", ""], 2, "--name"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, said: str, bolt: Path, tmp_path: Path, capsys: Capture
) -> None:
    found = main(["triton", str(bolt), "-o", str(tmp_path / "r"), *arguments])
    assert said in error_of(capsys, found, code)
    assert not (tmp_path / "r").exists()


def test_a_decoding_loop_is_no_ensemble(bolt: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bolt)
    several = dataclasses.replace(opened, components=2 * opened.components)
    with pytest.raises(UnsupportedError, match="has no loops"):
        write(several, tmp_path / "r", Serving("model"))
    assert not (tmp_path / "r").exists()


def test_numbers_out_of_range() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Serving("model", max_batch_size=0)
    with pytest.raises(UsageError, match="32 bits"):
        Serving("model", max_queue_delay_us=2**31)


def test_a_repository_in_the_bundle_is_refused(bolt: Path) -> None:
    with pytest.raises(UsageError, match="lies in the bundle"):
        write(Bundle.open(bolt), bolt / "models", Serving("model"))
    assert not (bolt / "models").exists()


def test_only_the_length_is_long(bolt: Path) -> None:
    """Of a call that warms up: groups have one series, horizons a few patches."""
    inputs = [
        TensorInfo("context", "float32", ("batch", "series", "length")),
        TensorInfo("future", "float32", ("batch", "series", "horizon", 8)),
    ]
    found = signature(inputs, [TensorInfo("quantiles", "float32", ("batch", "series", 3, 8))], joined=True)
    opened = Bundle.open(bolt)
    assert warm_shapes(opened, found, 100) == {"context": (1, 1, 100), "future": (1, 1, 4, 8)}
