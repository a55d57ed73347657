"""The command line with a sampled softmax that is not corrected for how negatives are drawn."""

from typing import Any

import tensorflow as tf

import models.training.two_tower_model
from models.training.losses import draw_negatives
from pipeline.cli import main as cli


def uncorrected(*arguments: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """As `draw_negatives`, with a correction of 0."""
    negatives, log_expected = draw_negatives(*arguments)
    return negatives, tf.zeros_like(log_expected)


def main() -> None:
    """As `two-tower`."""
    models.training.two_tower_model.draw_negatives = uncorrected
    cli.main()
