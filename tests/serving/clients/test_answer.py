from __future__ import annotations

import copy

import pytest

from serving.clients.answer import Prediction, Recommendations, read_recommendations, read_scores
from serving.clients.model import Tensor


def test_padding_of_short_answers_is_removed() -> None:
    least = -3.4028235e38
    prediction = Prediction(
        {
            "candidate_ids": Tensor("string", (3, 2), ["a", "b", "c", "", "", ""]),
            "scores": Tensor("float", (3, 2), [2.0, 1.0, 1.5, least, least, least]),
        },
        7,
    )
    assert read_recommendations(prediction, None) == [
        Recommendations(("a", "b"), (2.0, 1.0), 7),
        Recommendations(("c",), (1.5,), 7),
        Recommendations((), (), 7),
    ]
    assert read_recommendations(prediction, 1)[0] == Recommendations(("a",), (2.0,), 7)


def test_other_outputs_are_fields_and_attributes() -> None:
    outputs = {
        "candidate_ids": Tensor("string", (2, 2), ["a", "b", "c", ""]),
        "scores": Tensor("float", (2, 2), [2.0, 1.0, 1.5, 0.0]),
        "title": Tensor("string", (2, 2), ["A", "", "C", ""]),
    }
    first, second = read_recommendations(Prediction(outputs, 7), None)
    assert first.title == first.fields["title"] == ("A", "")
    assert second.title == ("C",)
    with pytest.raises(AttributeError, match="no field 'titel'; its fields: title"):
        _ = first.titel
    assert copy.deepcopy(first) == first
    assert len({first, second}) == 2
    del outputs["candidate_ids"]
    # A server may pad the given candidates.
    assert read_scores(Prediction(outputs, 7), ["x"])[0] == Recommendations(
        ("x",), (2.0,), 7, {"title": ("A",)}
    )
