"""The command `python -m serving.server`."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn

from serving.errors import StartupError
from serving.server import event_log
from serving.server.flags import ServerFlags, check_ports_are_free, parse_flags


def main() -> int:
    """Run the server; return 0 after SIGTERM or SIGINT, 1 if it could not start."""
    flags = parse_flags()
    event_log.configure(flags.log_format)
    try:
        check_ports_are_free(flags)
        _serve(flags)
    except StartupError as error:
        event_log.error("startup_failed", error=error)
        return 1
    return 0


def end_process(status: int) -> NoReturn:
    """Exit the process without finalizing the Python interpreter.

    All requests have been answered at this point. Finalization sometimes crashes, because threads
    still wait inside TensorFlow and gRPC.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_tensorflow() -> None:
    """Import TensorFlow and the server, which takes seconds, and register the ScaNN ops.

    TensorFlow's banner and warnings are disabled, because they would make the log hard to read.
    The import of Keras, which TensorFlow treats as optional, is blocked: it would take a third of
    the time.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    for keras in ("keras", "tf_keras"):
        sys.modules.setdefault(keras, None)  # type: ignore[arg-type]
    import tensorflow as tf
    import uvloop  # noqa: F401

    tf.get_logger().setLevel("ERROR")
    import serving.server.server  # noqa: F401
    from serving.server.loaded_model import register_scann_ops

    register_scann_ops()


def _serve(flags: ServerFlags) -> None:
    # Imported after the flags are parsed, so that --help and invalid flags respond immediately.
    import_tensorflow()
    import uvloop

    from serving.server.server import serve

    # asyncio's own event loop takes 20 % more time per request.
    uvloop.run(serve(flags))


if __name__ == "__main__":
    end_process(main())
