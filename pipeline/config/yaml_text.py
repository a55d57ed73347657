"""YAML as users write it: the core schema of YAML 1.2, in which keys are unique.

PyYAML follows YAML 1.1, where `1e-3` is a string, `no` is false, `010` is 8 and `1:30` is 90. It
silently keeps the last of several equal keys.

References:
    https://yaml.org/spec/1.2.2/#103-core-schema
"""

import re
from typing import Any

import yaml

_STRING, _MERGE, _NULL, _BOOLEAN, _INTEGER, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "merge", "null", "bool", "int", "float")
)
# The pattern and the first characters of the plain scalars of each type.
_CORE_SCHEMA = {
    _MERGE: (r"<<", ["<"]),
    _NULL: (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    _BOOLEAN: (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    _INTEGER: (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    _FLOAT: (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


def read_yaml(text: str) -> Any:
    """Return the content of a YAML document; keys are always text, as in `{1: 0.5, no: 2}`.

    Raises:
        ValueError: The text is not YAML, or a key occurs twice. The message names the lines.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        context = "" if error.context is None else f"{error.context}, "
        raise ValueError(f"{where}{context}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError) as error:
        raise ValueError(f"a value does not have the type of its tag: {error}") from error
    except RecursionError as error:
        raise ValueError("too many levels are nested") from error


def write_yaml(content: Any, *, sort_keys: bool = False) -> str:
    """Return content as YAML that has the same values in YAML 1.1 and 1.2."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True)
    return text


def quote(text: str) -> str:
    """Return a string in double quotes."""
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9)
    return quoted.rstrip("\n")


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked here, because the constructor inserts merged keys, which may be overridden.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Node] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in first:
                lines = f"{first[key.value].start_mark.line + 1} and {key.start_mark.line + 1}"
                raise ValueError(
                    f"the key `{key.value}` must occur once in its section, but is in lines {lines}"
                )
            first[key.value] = key
            if key.tag != _MERGE:
                key.tag = _STRING
        return node

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        # Python rejects leading zeros unless the base is explicit.
        return int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes each string that YAML 1.1 or 1.2 would read as another type."""


_Loader.yaml_implicit_resolvers = {}
for _class in (_Loader, _Dumper):
    for _tag, (_pattern, _first) in _CORE_SCHEMA.items():
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_INTEGER, _Loader.construct_integer)
