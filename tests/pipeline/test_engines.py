"""The same Examples from every engine that can be had on one machine."""

from pathlib import Path

import pytest

from tests.pipeline.two_clubs import Command, write_two_clubs
from tests.pipeline.worker_pools import worker_pools

pytestmark = pytest.mark.long


def ingest(two_tower: Command, config: Path, runs: Path, *settings: str) -> dict[str, list[str]]:
    """The Examples of each split, in any order."""
    import tensorflow as tf

    done = two_tower(
        *("component", "TimelineExampleGen", "--config", str(config), "--run-id", "engine"),
        *("--set", f"runs={runs}"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert done.returncode == 0, done.stderr
    [folder] = (runs / "clubs" / "artifacts" / "TimelineExampleGen" / "examples").iterdir()
    return {
        split.name: sorted(
            str(tf.train.Example.FromString(record.numpy()))
            for file in split.iterdir()
            for record in tf.data.TFRecordDataset(str(file), "GZIP")
        )
        for split in folder.iterdir()
    }


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_clubs(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def expected(
    config: Path, tmp_path_factory: pytest.TempPathFactory, two_tower: Command
) -> dict[str, list[str]]:
    return ingest(two_tower, config, tmp_path_factory.mktemp("one_worker"))


def test_several_processes(
    config: Path, expected: dict[str, list[str]], tmp_path: Path, two_tower: Command
) -> None:
    assert ingest(two_tower, config, tmp_path, "beam.workers=2") == expected


def test_two_pools_of_external_workers(
    config: Path, expected: dict[str, list[str]], tmp_path: Path, two_tower: Command
) -> None:
    with worker_pools(tmp_path) as engine:
        found = ingest(
            two_tower,
            config,
            tmp_path / "runs",
            "beam.runner=PortableRunner",
            f"beam.options={engine.options}",
        )
    assert found == expected
    assert all(engine.started), engine.started
