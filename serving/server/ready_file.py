"""Tells a launcher, by a file, that the model is available and on which ports."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write(path: str, grpc_port: int | None, rest_port: int | None) -> None:
    """Write the ready file whole or not at all.

    Args:
        path: Where to; a file that is there is replaced.
        grpc_port: The gRPC port; None if gRPC is off.
        rest_port: The REST port; None if REST is off.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    content = {"grpc_port": grpc_port, "rest_port": rest_port, "pid": os.getpid()}
    aside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    aside.replace(target)
