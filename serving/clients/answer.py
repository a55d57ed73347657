"""What comes back, and how it is read from output tensors."""

from __future__ import annotations

import dataclasses

from serving.clients.model_metadata import SignatureSpec
from serving.clients.tensor import Tensor
from serving.clients.transport import Prediction
from serving.errors import InternalError, InvalidArgumentError

CANDIDATE_IDS = "candidate_ids"
SCORES = "scores"
EMBEDDING = "embedding"


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """Candidates for one query, best first.

    Attributes:
        candidate_ids: The candidates; fewer than asked for where fewer are left.
        scores: Their scores, as many.
        model_version: The version that answered; None over REST, which does not tell it.
    """

    candidate_ids: tuple[str, ...]
    scores: tuple[float, ...]
    model_version: int | None


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The vector of one query or candidate.

    Attributes:
        values: The vector.
        model_version: The version that answered; None over REST, which does not tell it.
    """

    values: tuple[float, ...]
    model_version: int | None


def check_k(signature: SignatureSpec, k: int | None) -> None:
    """Check a wanted number of candidates against what the model returns, where it tells.

    Raises:
        InvalidArgumentError: If `k` is not positive or larger than the model's k.
    """
    if k is None:
        return
    if k < 1:
        raise InvalidArgumentError(f"k must be at least 1, got {k}")
    spec = signature.outputs.get(CANDIDATE_IDS)
    if spec is not None and spec.shape and spec.shape[-1] is not None and k > spec.shape[-1]:
        raise InvalidArgumentError(
            f"k must be at most {spec.shape[-1]}, the number of candidates that the model returns "
            f"for each query, got {k}; more needs a model exported with a larger k"
        )


def read_recommendations(prediction: Prediction, k: int | None) -> list[Recommendations]:
    """Return the first `k` candidates for each query; all if `k` is None.

    Places that the model could not fill, because too few candidates were left, are dropped.

    Raises:
        InternalError: If the model's answer does not follow the served contract.
    """
    ids = _output(prediction, CANDIDATE_IDS)
    scores = _output(prediction, SCORES)
    if ids.shape != scores.shape:
        raise InternalError(
            f"candidate_ids and scores must have one shape, got {ids.shape} and {scores.shape}"
        )
    return [
        _without_padding(row_ids[:k], row_scores[:k], prediction.model_version)
        for row_ids, row_scores in zip(ids.rows(), scores.rows(), strict=True)
    ]


def _without_padding(
    ids: tuple[str, ...], scores: tuple[float, ...], version: int | None
) -> Recommendations:
    # Unfilled places are the last ones.
    left = ids.index("") if "" in ids else len(ids)
    return Recommendations(ids[:left], scores[:left], version)


def read_embeddings(prediction: Prediction) -> list[Embedding]:
    """Return the vector of each row.

    Raises:
        InternalError: If the model's answer does not follow the served contract.
    """
    rows = _output(prediction, EMBEDDING).rows()
    return [Embedding(row, prediction.model_version) for row in rows]


def _output(prediction: Prediction, name: str) -> Tensor:
    try:
        return prediction.outputs[name]
    except KeyError as error:
        raise InternalError(
            f"The model must have an output {name!r}, got {sorted(prediction.outputs)}"
        ) from error
