from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.yaml_text import quote, read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1e-3, 1E5, .5, 1e+3, -2.5e1]", [0.001, 100_000.0, 0.5, 1000.0, -25.0]),
        ("[010, 0o10, 0x10, +3]", [10, 8, 16, 3]),
        ("[on, No, y, 1:30, 1_0, =]", ["on", "No", "y", "1:30", "1_0", "="]),
        ("2024-05-01", "2024-05-01"),
        ("[true, False, null, ~, '1e3']", [True, False, None, None, "1e3"]),
        ("{007: 1, no: 2, 2024-05-01: 3}", {"007": 1, "no": 2, "2024-05-01": 3}),
        ("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\nd: *a",
         {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2, "y": 3}, "d": {"x": 1}}),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2_and_keys_are_text(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1}\n'a': 2", "`a` .* lines 1 and 3"),
        ("a:\n  - b: 1\n    c: 2\n    b: 3", "`b` .* lines 2 and 4"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", "`<<` .* lines 3 and 4"),
        ("a: 1\nb: [", "^line 2, column 5: "),
        ("!!bool maybe", "tag"),
        ("[" * 5000, "nested"),
        ("\x00", "unacceptable character"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_lines(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(text)


_LOOKALIKES = st.from_regex(r"[-+]?[0-9._]{0,4}([eE:x][-+]?[0-9]{0,3})?", fullmatch=True)
_PRINTABLE = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x85")
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(_LOOKALIKES | _PRINTABLE, _LOOKALIKES | _PRINTABLE | st.floats(allow_nan=False))
)
def test_what_is_written_has_the_same_value_in_yaml_1_1_and_1_2(content: dict[str, Any]) -> None:
    text = write_yaml(content)
    assert read_yaml(text) == yaml.safe_load(text) == content
    for value in content:
        assert read_yaml(quote(value)) == yaml.safe_load(quote(value)) == value
