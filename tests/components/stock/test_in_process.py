from pathlib import Path

import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from components.patches.transform import no_side_input_cache
from components.stock import in_process
from components.stock.in_process import batch_size, runs_in_process
from tests.builders import example


def write(folder: Path, lengths: list[int], num_files: int = 1) -> str:
    folder.mkdir()
    for file in range(num_files):
        with tf.io.TFRecordWriter(str(folder / f"data-{file}.gz"), "GZIP") as writer:
            for length in lengths[file::num_files]:
                writer.write(example({"user": [b"u"], "item": range(length), "age": []}))
    return str(folder)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([3], 4096),
        ([20, 106], 4096),
        ([128], 4096),
        ([129], 2048),
        ([1, 1000], 1024),  # 500 on average
        ([1000], 512),
        ([600_000], 1),
        ([0], 4096),
    ],
)
def test_longer_examples_shrink_batches(tmp_path: Path, lengths: list[int], expected: int) -> None:
    assert batch_size([write(tmp_path / "train", lengths)]) == expected


def test_the_longest_split_decides_over_all_its_files(tmp_path: Path) -> None:
    short = write(tmp_path / "candidates", [1] * 10)
    long = write(tmp_path / "train", [1, 1000] * 5, num_files=2)
    (tmp_path / "empty").mkdir()
    assert batch_size([str(tmp_path / "empty"), long, short]) == 1024
    assert batch_size([]) == 4096


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], True),
        (["--runner=DirectRunner", "--direct_num_workers=1"], True),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
        (["--direct_num_workers=0"], False),  # one per core
        (["--runner=FlinkRunner"], False),
        (["--extra_package=/tmp/code.tar.gz"], True),
    ],
)
def test_only_a_direct_runner_without_workers_works_in_process_on_large_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: bool
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "y").write_bytes(b"4567")
    monkeypatch.setattr(in_process, "SMALL_BYTES", 6)
    assert runs_in_process(arguments, str(tmp_path)) == expected
    monkeypatch.setattr(in_process, "SMALL_BYTES", 7)
    assert runs_in_process(arguments, str(tmp_path))


def test_the_cache_of_side_inputs_comes_back() -> None:
    usual = worker_handlers.STATE_CACHE_SIZE_MB
    assert usual > 0
    with no_side_input_cache():
        assert worker_handlers.STATE_CACHE_SIZE_MB == 0
    assert usual == worker_handlers.STATE_CACHE_SIZE_MB
