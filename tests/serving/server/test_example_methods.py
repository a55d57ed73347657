"""What Classify and Regress refuse in signatures of one input; a retrieval model has few."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.errors import InvalidArgumentError, UnimplementedError
from serving.server.example_methods import refuse_classify, refuse_regress


def definition(input_name: str, output_name: str) -> str:
    return (
        f'inputs {{\n  key: "{input_name}"\n  value {{\n    name: "x:0"\n  }}\n}}\n'
        f'outputs {{\n  key: "{output_name}"\n  value {{\n    name: "y:0"\n  }}\n}}\n'
    )


class Manager:
    """One version with one signature."""

    def __init__(self, text: str) -> None:
        signature = text_format.Parse(text, meta_graph_pb2.SignatureDef())
        self._model = SimpleNamespace(signature_defs={"serving_default": signature})

    def use(self, spec: Any) -> Any:
        return contextlib.nullcontext(self._model)


@pytest.mark.parametrize(
    ("method", "names", "text"),
    [
        ("regress", ("rounds", "y"), "No regression inputs found in SignatureDef: "),
        ("regress", ("inputs", "y"), "No regression outputs found in SignatureDef: "),
        ("classify", ("rounds", "y"), "No classification inputs found in SignatureDef: "),
        (
            "classify",
            ("inputs", "y"),
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: ',
        ),
    ],
)
def test_the_signature_is_shown(method: str, names: tuple[str, str], text: str) -> None:
    manager: Any = Manager(definition(*names))
    request: Any
    if method == "regress":
        request = regression_pb2.RegressionRequest()
    else:
        request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "m"
    error = {"regress": refuse_regress, "classify": refuse_classify}[method](manager, request)
    assert isinstance(error, InvalidArgumentError)
    assert error.message == text + definition(*names)


def test_a_signature_for_regression_is_not_offered() -> None:
    manager: Any = Manager(definition("inputs", "outputs"))
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "m"
    assert isinstance(refuse_regress(manager, request), UnimplementedError)
