"""Tables of candidates from a truncated SVD: a start of training, or a model without training."""

import numpy as np
import tensorflow as tf

from models.input.timeline_dataset import TimelineDataset
from models.towers.candidate_and_query import EMBEDDING_STDDEV
from models.towers.export import named_weights
from models.training.two_tower_model import TwoTowerModel
from models.truncated_svd import truncated_svd

# Orders candidates with equal scores, and all candidates for a query without history.
_POPULARITY_WEIGHT = 1e-6


def start_from_svd(model: TwoTowerModel, timelines: TimelineDataset) -> None:
    """Set the tables of a built model to vectors of the truncated SVD of its training timelines.

    With `model.kind: svd`, the scores are those of the SVD: features add nothing, and the biases
    only break ties. Else, the vectors get the length of random initial ones, and candidates without
    events keep these.
    """
    candidates, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in timelines.epochs(0, 1):
        history = batch[model.spec.candidate_id].numpy()
        known = (history >= 0) & (history < model.num_candidates)
        candidates.append(history[known].astype(np.int64))
        lengths.append(known.sum(axis=1))
    events = np.concatenate(candidates)
    offsets = np.cumsum(np.concatenate(([0], *lengths)))
    number, dimension = model.num_candidates, model.config.dimension
    of_events, of_candidates = truncated_svd(events, offsets, number, dimension)
    tables = {"query_tower:events": of_events, "candidate_tower:ids": of_candidates}
    weights = named_weights([model.candidate_tower, model.query_tower])
    if model.config.kind == "svd":
        for name, weight in weights.items():
            if ":features:" in name or ":event_features:" in name:
                weight.assign(tf.zeros_like(weight))
        counts = np.bincount(events, minlength=number).astype(np.float32)
        biases = _POPULARITY_WEIGHT * counts / max(counts.max(initial=0), 1)
        tables["candidate_tower:biases"] = biases[:, None]
    for name, vectors in tables.items():
        if (weight := weights.get(f"{name}:embeddings")) is None:
            continue  # the towers share one table
        table = weight.numpy()
        if model.config.kind == "svd":
            table[:number] = vectors
        else:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            scale = EMBEDDING_STDDEV * dimension**0.5 / np.maximum(norms, 1e-9)
            table[:number] = np.where(norms > 1e-9, vectors * scale, table[:number])
        weight.assign(table)
