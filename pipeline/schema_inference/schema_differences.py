"""Search for differences between the curated schema and statistics of the data."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.schema_inference.inferred_schema import CATALOGUE, TIMELINES, infer_feature
from pipeline.schema_inference.observation import MAX_COUNTED_VALUES, FeatureTally, Observation

_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A difference between the schema and the data.

    `feature` is empty for the schema as a whole. `edit` is an edit of the schema that resolves the
    difference, if the data is correct.
    """

    feature: str
    schema_says: str
    data_says: str
    edit: str


def find_differences(schema: schema_pb2.Schema, observed: Observation) -> list[Difference]:
    """Return the differences that would stop a run or break Transform, in order of the schema.

    If the schema allows more than the data contains, this is not a difference.
    """
    found = []
    if missing := [e for e in (TIMELINES, CATALOGUE) if e not in schema.default_environment]:
        edit = "add " + " ".join(f'default_environment: "{name}"' for name in missing)
        says = f"no environment {' and '.join(missing)}"
        found.append(Difference("", says, "two kinds of Examples", edit))
    declared = {feature.name: feature for feature in schema.feature}
    for name, feature in declared.items():
        if tally := observed.features.get(name):
            found += _compare(schema, feature, tally)
        else:
            edit = f'remove feature "{name}", or declare it in the configuration'
            data_says = "no Example of this configuration has it"
            found.append(Difference(name, "a feature", data_says, edit))
    for name, tally in observed.features.items():
        if name not in declared:
            inferred = infer_feature(tally, closed=observed.is_complete)
            text = text_format.MessageToString(inferred, as_one_line=True, as_utf8=True)
            edit = f"add feature {{ {text} }}"
            found.append(Difference(name, "nothing", f"{tally.num_present:,} values", edit))
    for (source, column, reason), count in observed.bad_rows.most_common():
        first = observed.bad_values[source, column, reason]
        data_says = f"{count:,} rows of {source}: {reason}, first {first!r}"
        edit = "none: fix the data, or set `ingest.bad_rows: reject`"
        found.append(Difference(column or "a row", "rows that can be read", data_says, edit))
    return found


def _compare(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, tally: FeatureTally
) -> Iterator[Difference]:
    differ = partial(Difference, tally.name)
    says_type = schema_pb2.FeatureType.Name(feature.type)
    if says_type != tally.value_type:
        yield differ(f"type {says_type}", tally.value_type, f"type: {tally.value_type}")
        return
    if feature.HasField("shape"):
        edit = "remove `shape`, keep `value_count`"
        yield differ("a fixed shape", "sparse, as every feature", edit)
    yield from _environment(feature, tally)
    required = feature.presence.min_count > 0 or feature.presence.min_fraction > 0
    if not tally.num_present and required:
        edit = "remove `presence`, or restore the values in the data"
        yield differ("present", f"no value in {tally.num_rows:,} rows", edit)
    elif tally.num_missing and feature.value_count.min > 0:
        share = tally.num_missing / tally.num_rows
        data_says = f"{tally.num_missing:,} of {tally.num_rows:,} rows have none ({share:.2%})"
        edit = "value_count { min: 0 } and no presence.min_fraction"
        yield differ(f"at least {feature.value_count.min} value", data_says, edit)
    if tally.is_list and feature.value_count.max == 1:
        yield differ("at most 1 value", "a list of values", "remove value_count.max")
    if tally.value_type == "BYTES":
        yield from _string_domain(schema, feature, tally)
    else:
        yield from _range(feature, tally)


def _environment(feature: schema_pb2.Feature, tally: FeatureTally) -> Iterator[Difference]:
    expected = set()
    if tally.side != "candidate_id":
        expected = {TIMELINES if tally.side == "candidate" else CATALOGUE}
    says = set(feature.not_in_environment)
    if feature.in_environment:
        says |= {TIMELINES, CATALOGUE} - set(feature.in_environment)
    for name in sorted(says ^ expected):
        edit = f'not_in_environment: "{name}"'
        if name in says:
            found = (f"not in {name}", f"{name} Examples have it", f"remove {edit}")
        else:
            found = (f"in {name}", f"no {name} Example has it", edit)
        yield Difference(tally.name, *found)


def _string_domain(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, tally: FeatureTally
) -> Iterator[Difference]:
    domains = {domain.name: domain for domain in schema.string_domain}
    if feature.HasField("string_domain"):
        domain = set(feature.string_domain.value)
    elif feature.HasField("domain") and feature.domain in domains:
        domain = set(domains[feature.domain].value)
    else:
        return
    differ = partial(Difference, tally.name, f"one of {len(domain)} values")
    if tally.values is None:
        data_says = f"IDs, free text or more than {MAX_COUNTED_VALUES:,} distinct values"
        yield differ(data_says, "remove `string_domain`")
        return
    new = {value: n for value, n in tally.values.most_common() if value not in domain}
    total = tally.values.total()
    # Share of the values that must be in the domain, with the same default as in TFDV.
    mass = 1.0
    if feature.HasField("distribution_constraints"):
        mass = feature.distribution_constraints.min_domain_mass
    if not new or total - sum(new.values()) >= mass * total:
        return
    first = list(new.items())[:_SHOWN]
    more = len(new) - len(first)
    shown = ", ".join(f"{value!r} {count:,}×" for value, count in first)
    lines = " ".join(f"value: {json.dumps(value, ensure_ascii=False)}" for value, _ in first)
    yield differ(
        f"{len(new)} new: {shown}{f' and {more} more' if more else ''}",
        f"string_domain {{ {lines}{' …' if more else ''} }}",
    )


def _range(feature: schema_pb2.Feature, tally: FeatureTally) -> Iterator[Difference]:
    kind = "float_domain" if tally.value_type == "FLOAT" else "int_domain"
    if tally.minimum is None or tally.maximum is None or not feature.HasField(kind):
        return
    domain = getattr(feature, kind)
    for bound, found, says, data_says in (
        ("min", tally.minimum, "at least", "down to"),
        ("max", tally.maximum, "at most", "up to"),
    ):
        limit = getattr(domain, bound)
        if domain.HasField(bound) and (found < limit if bound == "min" else found > limit):
            shown = f"{found:.10g}"
            edit = f"{kind} {{ {bound}: {shown} }}"
            yield Difference(tally.name, f"{says} {limit:.10g}", f"{data_says} {shown}", edit)
