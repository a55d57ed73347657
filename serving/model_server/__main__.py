"""The command `python -m serving.model_server`."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings

from serving.model_server import event_log
from serving.model_server.flags import ServerFlags, parse_flags
from serving.model_server.startup import StartupError, check_ports_are_free


def main() -> int:
    """Run the server.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 if the server could not start.
    """
    flags = parse_flags()
    event_log.configure()
    try:
        check_ports_are_free(flags)
        _serve(flags)
    except StartupError as error:
        event_log.error("startup_failed", error=error)
        return 1
    return 0


def _serve(flags: ServerFlags) -> None:
    # TensorFlow is imported only now, so that --help and a wrong flag answer at once; its banner
    # and its dependencies' warnings would bury the log.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    from serving.model_server import scann_ops
    from serving.model_server.server import serve

    scann_ops.register()
    asyncio.run(serve(flags))


if __name__ == "__main__":
    sys.exit(main())
