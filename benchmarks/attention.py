"""Measure the memory and CPU time of training self-attention over long histories.

One epoch of `history_encoder: recency_attention` on a million synthetic ratings, as many users and
films as in MovieLens 1M, with the default `max_history`. `recency` is the comparison.

Usage: python benchmarks/attention.py [--json]
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import measure_call
from benchmarks._report import Row, options_parser, row, run

USERS, MEAN_EVENTS, FILMS = 6_040, 166, 3_700
MUST_MB, AIM_MB = 4_096.0, 2_048.0


def training(encoder: str, file: str) -> Callable[[], Any]:
    """Return a function that trains one epoch and returns the number of epochs."""
    import numpy as np

    from benchmarks.input import SPEC
    from models.config import ModelConfig, TrainingConfig
    from models.features.vocabularies import FeatureSizes
    from models.input.timeline_dataset import TimelineDataset
    from models.training.trainer import fit
    from models.training.two_tower_model import TwoTowerModel

    config = ModelConfig.model_validate({"history_encoder": encoder, "share_candidate_ids": True})
    options = TrainingConfig(objective="next_candidate", history_dropout=0.0, epochs=1)

    def train() -> int:
        timelines = TimelineDataset([file], SPEC, options.batch_size, 0.0, options.seed)
        sizes = FeatureSizes(1, FILMS + 1, {"country": 10})
        counts = np.ones(FILMS, np.int64)
        number = timelines.num_timelines
        model = TwoTowerModel(SPEC, sizes, config, options, {}, counts, number)
        folder = Path(file).parent / encoder
        return fit(model, timelines, options, folder, str(folder)).epochs_done

    return train


def rows(_: Any, folder: Path) -> Iterator[Row]:
    from benchmarks.input import write_timelines

    file = str(folder / "ratings.gz")
    yield row("ratings", write_timelines(file, USERS, MEAN_EVENTS, FILMS), "events")
    for encoder in ("recency", "recency_attention"):
        prepare = "benchmarks.attention:training"
        found = measure_call(prepare, encoder, file, log=folder / f"{encoder}.log")
        bounds = (MUST_MB, AIM_MB) if encoder == "recency_attention" else ()
        yield row(f"{encoder}: peak", found["peak_mb"], "MB", *bounds)
        yield row(f"{encoder}: CPU of an epoch", found["cpu_s"], "s")


if __name__ == "__main__":
    run(options_parser(__doc__), rows, "tensorflow")
