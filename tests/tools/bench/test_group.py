"""What is timed of a file whose ratio is chosen at run time: a line for each of several ratios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests import artefacts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench import worker
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.tools.bench.group import of_bundle


def test_a_bundle_has_a_candidate_for_each_ratio() -> None:
    path = str(artefacts.bundle("bolt-tiny", MergeConfig(ratio="runtime:1/4")))
    group = of_bundle(path)
    assert [one.name for one in group.candidates] == [
        f"bundle {path}, ratio {ratio}" for ratio in ("0", "1/10", "1/4", "1/3", "1/2")
    ]
    feed = group.inputs(np.ones((2, 40), np.float32))
    assert [*feed] == ["context"]
    fed = [one.fed(feed)["merge_ratio"] for one in group.candidates]
    assert [value.dtype for value in fed] == [np.dtype("float32")] * 5 and fed[1] == np.float32(0.1)
    again = Candidate(**json.loads(json.dumps(group.candidates[3].to_dict())))
    assert again == group.candidates[3]
    fixed = of_bundle(str(artefacts.bundle("bolt-tiny", MergeConfig(ratio="1/4"))))
    assert len(fixed.candidates) == 1 and fixed.candidates[0].fed(feed) is feed


def test_the_process_of_a_candidate_runs_at_its_ratio(tmp_path: Path) -> None:
    group = of_bundle(str(artefacts.bundle("bolt-tiny", MergeConfig(ratio="runtime:1/4"))))
    feed = {"context": np.random.default_rng(0).standard_normal((1, 150)).cumsum(1).astype(np.float32)}
    file = tmp_path / "inputs.npz"
    np.savez(file, **feed)  # type: ignore[arg-type]
    place = {"providers": ["CPUExecutionProvider"], "plugin": None}
    found = [
        worker.prepare(
            {
                "candidate": one.to_dict(),
                "component": "model",
                "inputs": str(file),
                "threads": 1,
                "place": place,
            }
        )()
        for one in (group.candidates[0], group.candidates[4])
    ]
    slow, fast = (np.asarray(outputs)[0] for outputs in found)  # type: ignore[index]
    assert slow.shape == fast.shape and not np.array_equal(slow, fast)
