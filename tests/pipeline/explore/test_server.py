"""The address of the explorer."""

import re
import socket

import pytest

from pipeline.explore.server import ExplorerServer
from serving.errors import StartupError


def test_an_address_that_cannot_be_used_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"explorer: cannot listen on 127.0.0.1:{port}: Address already in use. Stop"
        with pytest.raises(StartupError, match=re.escape(message)):
            ExplorerServer("127.0.0.1", port)
    with pytest.raises(StartupError, match=r"192\.0\.2\.1:8502: Cannot assign requested address$"):
        ExplorerServer("192.0.2.1", 8502)  # reserved for documentation
    free = ExplorerServer("127.0.0.1", 0)
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", free.url)
