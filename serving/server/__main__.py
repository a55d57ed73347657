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
    """Run the server.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 if the server could not start.
    """
    flags = parse_flags()
    event_log.configure(flags.log_format)
    if flags.not_heeded:
        event_log.warning("flags_not_heeded", flags=",".join(flags.not_heeded))
    try:
        check_ports_are_free(flags)
        _serve(flags)
    except StartupError as error:
        event_log.error("startup_failed", error=error)
        return 1
    return 0


def end_process(status: int) -> NoReturn:
    """End the process here and now.

    What was under way is answered by now. An orderly end of Python would still take the interpreter
    away from under threads that wait in TensorFlow and gRPC, where some ends are crashes.

    Args:
        status: The exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def import_tensorflow() -> None:
    """Import TensorFlow and all that serves with it, which takes seconds.

    Without its banner and its dependencies' warnings, which would bury the log, and without Keras,
    which TensorFlow imports if it can and which a third of the time would go to.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    for keras in ("keras", "tf_keras"):
        sys.modules.setdefault(keras, None)  # type: ignore[arg-type]
    import tensorflow as tf
    import uvloop  # noqa: F401

    tf.get_logger().setLevel("ERROR")
    import serving.server.server  # noqa: F401 - what serves, with it
    from serving.server import scann_ops

    scann_ops.register()


def _serve(flags: ServerFlags) -> None:
    # Only now, so that --help and a wrong flag answer at once.
    import_tensorflow()
    import uvloop

    from serving.server.server import serve

    # asyncio's own loop, which is written in Python, took a fifth of the time of a request.
    uvloop.run(serve(flags))


if __name__ == "__main__":
    end_process(main())
