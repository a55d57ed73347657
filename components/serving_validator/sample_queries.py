"""Real timelines as the questions that a client asks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from models.features.spec import HISTORY_KEY, FeatureSpec
from models.input.raw_examples import RawTimelines
from serving.clients.model import decode_text
from serving.clients.query import Query


@dataclass(frozen=True)
class Questions:
    """Queries twice: as tensors for the model in process and as a client's queries.

    Attributes:
        inputs: `models.input.raw_inputs.query_inputs`, one row a query.
        queries: The same rows.
        query_id_name: Input that takes the query id.
        candidate_id_name: Input of `similar_candidates`.
    """

    inputs: Mapping[str, tf.Tensor]
    queries: list[Query]
    query_id_name: str
    candidate_id_name: str

    @classmethod
    def from_timelines(cls, timelines: RawTimelines, spec: FeatureSpec) -> "Questions":
        """Makes one question of each timeline."""
        columns = {name: values.numpy().tolist() for name, values in timelines.inputs.items()}
        queries = []
        for row in range(len(columns[spec.query_id])):
            features = {name: _known(columns[name][row]) for name in spec.query_features}
            queries.append(
                Query(
                    query_id=decode_text(columns[spec.query_id][row]),
                    history=_known(columns[HISTORY_KEY][row]),
                    features={name: value for name, value in features.items() if value is not None},
                )
            )
        return cls(timelines.inputs, queries, spec.query_id, spec.candidate_id)


def _known(value: Any) -> Any:
    """The value without padding as a client gives it, None where it is missing."""
    if isinstance(value, list):
        return [decode_text(item) for item in value if item != b""]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return decode_text(value) or None
