"""Registers ScaNN's TensorFlow ops, which a model with a ScaNN index needs before it is loaded."""

from __future__ import annotations

from serving.server import event_log

_NOT_REGISTERED = "Op type not registered 'Scann>"

HOW_TO_GET = (
    "The model uses the ScaNN ops and this server has none: install `scann` (the release built "
    "for this TensorFlow), or export the index with `index.backend: partitioned` or `exact`, which "
    "need no special server"
)


def register() -> bool:
    """Register the ops if the package is there; models without a ScaNN index load either way.

    Returns:
        Whether the ops are registered now.
    """
    try:
        from scann.scann_ops.py import scann_ops  # noqa: F401
    except Exception as error:
        # ImportError without the package; tf.errors.NotFoundError where it was built for another
        # TensorFlow. Neither is a reason to refuse models that do not need it.
        event_log.warning("scann_ops_missing", error=error)
        return False
    event_log.info("scann_ops_registered")
    return True


def is_missing_from(error: BaseException) -> bool:
    """Tell whether a load failed for want of the ops."""
    return _NOT_REGISTERED in str(error)
