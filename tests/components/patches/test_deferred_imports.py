"""A step does not import heavy packages that it does not use."""

import subprocess
import sys

import pytest

HEAVY = ("nltk", "sklearn", "keras_tuner", "kubernetes", "tensorflow_model_analysis.metrics")
CODE = f"""
import io, sys
sys.stderr = io.StringIO()
import pipeline.runs.run
print([name for name in {HEAVY} if name in sys.modules])
print("IPython" in sys.stderr.getvalue())
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
tfdv.display_schema(schema_pb2.Schema())
from tfx.components import CsvExampleGen, bulk_inferrer
from tfx import components
import tensorflow_model_analysis as tfma
print(hasattr(components, "Evaluator"), hasattr(components, "nothing"), hasattr(tfma, "EvalConfig"))
"""


@pytest.mark.slow
def test_a_step_imports_nothing_that_it_does_not_need() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    heavy, has_hint, *_, shown = done.stdout.splitlines()
    assert (heavy, has_hint, shown) == ("[]", "False", "True False True")
