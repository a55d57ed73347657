"""Results of the clients, and functions that build them from output tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from serving.clients.model import SignatureSpec, Tensor, shown
from serving.errors import InternalError, InvalidArgumentError

CANDIDATE_IDS = "candidate_ids"
SCORES = "scores"
EMBEDDING = "embedding"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The output tensors of one request by name, and the version of the model, if it is known."""

    outputs: Mapping[str, Tensor]
    model_version: int | None

    def output(self, name: str) -> Tensor:
        """Return the output with this name."""
        if name not in self.outputs:
            raise InternalError(
                f"The model must have an output {name!r}, got {sorted(self.outputs)}"
            )
        return self.outputs[name]


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """Candidates for one query, best first.

    Attributes:
        candidate_ids: The candidates; fewer than requested if filters leave too few.
        scores: Their scores, in the same order.
        model_version: The version that answered; None over REST, which does not return it.
        fields: The other outputs for each candidate by name, in the same order, such as
            `retrieval_scores` and `serving.return_fields`; "" and NaN are missing values. They are
            attributes too: `answer.title` is `answer.fields["title"]`.
    """

    candidate_ids: tuple[str, ...]
    scores: tuple[float, ...]
    model_version: int | None
    fields: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict, hash=False)

    def __getattr__(self, name: str) -> tuple[Any, ...]:
        fields: Mapping[str, tuple[Any, ...]] = self.__dict__.get("fields", {})
        if name not in fields:
            known = ", ".join(fields) or "none"
            raise AttributeError(f"the answer has no field {name!r}; its fields: {known}")
        return fields[name]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The vector of one query or candidate.

    `model_version` is None over REST, which does not return it.
    """

    values: tuple[float, ...]
    model_version: int | None


def check_k(signature: SignatureSpec, k: Any) -> None:
    """Check that the model can return `k` candidates, if its metadata contains the number."""
    if k is None:
        return
    if not isinstance(k, int) or isinstance(k, bool) or not abs(k) < 2**63:
        raise InvalidArgumentError(f"k must be an integer, got {shown(k)}")
    if k < 1:
        raise InvalidArgumentError(f"k must be at least 1, got {k}")
    spec = signature.outputs.get(CANDIDATE_IDS)
    if spec is not None and spec.shape and spec.shape[-1] is not None and k > spec.shape[-1]:
        raise InvalidArgumentError(
            f"k must be at most {spec.shape[-1]}, the number of candidates that the model returns "
            f"for each query, got {k}. For more, export a model with a larger index.k."
        )


def read_recommendations(prediction: Prediction, k: int | None) -> list[Recommendations]:
    """Return the first `k` candidates for each query, or all of them if `k` is None."""
    found = []
    for row in _rows(prediction, (CANDIDATE_IDS, SCORES)):
        ids = row[CANDIDATE_IDS]
        # If too few candidates are left, the model pads the end of a row with "".
        count = ids.index("") if "" in ids else len(ids)
        count = count if k is None else min(count, k)
        first = {name: values[:count] for name, values in row.items()}
        found.append(
            Recommendations(
                first.pop(CANDIDATE_IDS), first.pop(SCORES), prediction.model_version, first
            )
        )
    return found


def read_scores(prediction: Prediction, candidate_ids: Sequence[str]) -> list[Recommendations]:
    """Return the given candidates with the scores that the model returns for them."""
    given = tuple(candidate_ids)
    found = []
    for row in _rows(prediction, (SCORES,)):
        first = {name: values[: len(given)] for name, values in row.items()}
        found.append(Recommendations(given, first.pop(SCORES), prediction.model_version, first))
    return found


def _rows(prediction: Prediction, required: Sequence[str]) -> list[dict[str, tuple[Any, ...]]]:
    """Return the outputs of each query by name; each has a value for every candidate."""
    for name in required:
        prediction.output(name)
    shapes = {name: tensor.shape for name, tensor in prediction.outputs.items()}
    if len(set(shapes.values())) > 1:
        raise InternalError(f"All outputs must have the same shape, got {shapes}")
    columns = [tensor.rows() for tensor in prediction.outputs.values()]
    return [dict(zip(shapes, row, strict=True)) for row in zip(*columns, strict=True)]


def read_embeddings(prediction: Prediction) -> list[Embedding]:
    """Return one embedding for each row of the output `embedding`."""
    rows = prediction.output(EMBEDDING).rows()
    return [Embedding(row, prediction.model_version) for row in rows]
