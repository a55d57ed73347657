"""The command `python -m serving.server`."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn

from serving.server import event_log
from serving.server.flags import ServerFlags, parse_flags
from serving.server.startup import StartupError, check_ports_are_free


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
    """End the process without Python's own shutdown.

    All requests are answered by now. Threads still wait inside TensorFlow and gRPC, and to finalize
    the interpreter under them crashes at times.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_tensorflow() -> None:
    """Import TensorFlow and the server, which takes seconds.

    TensorFlow's banner and warnings are off, since they would hide the log. Keras, which TensorFlow
    imports if it can, is left out: it would take a third of the time.
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
    # Not before the flags are parsed, so that --help and an invalid flag answer at once.
    import_tensorflow()
    import uvloop

    from serving.server.server import serve

    # asyncio's own loop takes a fifth more time per request.
    uvloop.run(serve(flags))


if __name__ == "__main__":
    end_process(main())
