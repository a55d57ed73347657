from __future__ import annotations

import pytest

from serving.server.flags import AUTO_PORT, parse_flags


def test_auto_takes_a_free_port_and_zero_switches_off() -> None:
    flags = parse_flags(["--model_base_path=/m", "--port=auto", "--rest_api_port=0"])
    assert (flags.port, flags.rest_api_port) == (AUTO_PORT, 0)


def test_channel_arguments_are_numbers_or_texts() -> None:
    flags = parse_flags(["--model_base_path=/m", "--grpc_channel_arguments=a=1,b=-2,c=x"])
    assert flags.grpc_channel_arguments == (("a", 1), ("b", -2), ("c", "x"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "one of --model_base_path and --model_config_file is required"),
        (["--model_base_path=/m", "--port=70000"], "must be 'auto' or a number up to 65535"),
        (["--model_base_path=/m", "--port=0", "--rest_api_port=0"], "nothing would be served"),
        (["--model_base_path=/m", "--port=1", "--rest_api_port=1"], "must differ, but both are 1"),
        (["--model_base_path=/m", "--enable_batching=maybe"], "must be true or false"),
        (["--model_base_path=/m", "--file_system_poll_wait_seconds=-1"], "at least 0"),
        (
            ["--model_base_path=/m", "--max_request_bytes=1.5"],
            "an integer of at least 1, got '1.5'",
        ),
        (["--model_base_path=/m", "--model_nam=x"], "unrecognized arguments"),
        (["--model_base_path=/m", "--log_format=xml"], "must be text or json"),
    ],
)
def test_wrong_flags_end_with_status_2_and_a_reason(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_flags(arguments)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err
