from __future__ import annotations

from serving.clients.answer import Prediction, Recommendations, read_recommendations
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
