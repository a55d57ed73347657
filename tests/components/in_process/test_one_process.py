"""Which Beam arguments leave the work to one process."""

import pytest
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from components.in_process.one_process import has_one_process
from components.in_process.side_inputs import no_side_input_cache


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], True),
        (["--runner=DirectRunner", "--direct_num_workers=1"], True),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
        (["--direct_num_workers=0"], False),  # as many as there are cores
        (["--runner=FlinkRunner"], False),
        (["--extra_package=/tmp/code.tar.gz"], True),
    ],
)
def test_one_process_is_the_direct_runner_without_workers(arguments: list[str], expected: bool):
    assert has_one_process(arguments) == expected


def test_the_cache_of_side_inputs_comes_back():
    usual = worker_handlers.STATE_CACHE_SIZE_MB
    assert usual > 0
    with no_side_input_cache():
        assert worker_handlers.STATE_CACHE_SIZE_MB == 0
    assert usual == worker_handlers.STATE_CACHE_SIZE_MB
