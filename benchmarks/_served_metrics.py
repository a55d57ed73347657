"""Ranks of the held-out candidates in the responses of a served model."""

import math
from collections.abc import Iterator
from typing import Any

from components.retrieval_evaluator.evaluation_queries import EvaluationQueryReader
from models.input.raw_examples import split_files
from pipeline.config.project import PipelineConfig
from pipeline.runs.evaluation import newest_output
from serving.clients import RetrievalClient
from serving.clients.query import Query
from serving.launcher import running_model_server

_QUERIES_PER_REQUEST = 64


def served_ranks(config: PipelineConfig, serving_dir: str, k: int) -> list[float]:
    """Serve the newest pushed version, send it the evaluation queries, and return the ranks.

    Args:
        config: The project. The queries are from its newest Examples, by its evaluation protocol.
        serving_dir: The base path of the versions.
        k: The number of candidates to request.

    Returns:
        For each held-out event, the rank of its candidate in the response, from 1; infinity if
        the candidate is not in the response.
    """
    ranks = []
    with (
        running_model_server(serving_dir, config.serving.model_name) as server,
        RetrievalClient(
            server.grpc_target,
            config.serving.model_name,
            query_id_name=config.columns.query_id,
            timeout_s=60.0,
        ) as client,
    ):
        for queries, targets in _evaluation_queries(config):
            answers = client.recommend(queries=queries, k=k)
            for answer, wanted in zip(answers, targets, strict=True):
                rank_of = {found: rank for rank, found in enumerate(answer.candidate_ids, start=1)}
                ranks += [rank_of.get(target, math.inf) for target in wanted]
    return ranks


def _evaluation_queries(config: PipelineConfig) -> Iterator[tuple[list[Query], list[list[str]]]]:
    settings = config.evaluation.for_split(
        config.split.method, has_times=config.columns.timestamp is not None
    )
    examples = newest_output(config, "TimelineExampleGen", "examples")
    reader = EvaluationQueryReader(config.spec, _NoIndex(), settings)
    for block in reader.read(split_files(examples, settings.split), _QUERIES_PER_REQUEST):
        inputs = {name: values.numpy() for name, values in block.inputs.items()}
        queries, targets = [], []
        for row in range(len(block)):
            history = [event.decode() for event in inputs["history"][row] if event]
            queries.append(
                Query(
                    inputs[config.columns.query_id][row].decode(),
                    history,
                    {name: _plain(inputs[name][row]) for name in config.spec.query_features},
                    exclude=history if settings.exclude_seen else (),
                )
            )
            mine = block.target_ids[block.target_rows == row]
            targets.append([target.decode() for target in mine])
        yield queries, targets


def _plain(value: Any) -> Any:
    """Convert a NumPy feature value to the type that the client takes."""
    return value.decode() if isinstance(value, bytes) else value.item()


class _NoIndex:
    """A candidate lookup that returns zeros; the server takes ids, so indices are not needed."""

    def lookup(self, ids: Any) -> Any:
        import tensorflow as tf

        return tf.zeros_like(ids, tf.int64)
