import json
import math

from pipeline.cli.json_output import json_text


def test_what_is_no_number_is_null() -> None:
    text = json_text({"a": math.nan, "b": [1.5, -math.inf], "c": {"d": (1, "NaN")}})
    assert json.loads(text) == {"a": None, "b": [1.5, None], "c": {"d": [1, "NaN"]}}
    assert "NaN," not in text
