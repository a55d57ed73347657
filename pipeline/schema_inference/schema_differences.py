"""Search for differences between the curated schema and statistics of the data."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.schema_inference.feature_tally import MAX_COUNTED_VALUES, FeatureTally
from pipeline.schema_inference.inferred_schema import CATALOGUE, TIMELINES, infer_feature
from pipeline.schema_inference.observation import Observation

_SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """One difference between the schema and the data.

    Attributes:
        feature: Name of the feature; empty for the schema as a whole.
        schema_says: Requirement in the schema.
        data_says: Observed property of the data.
        edit: Edit of the schema that resolves the difference, if the data is correct.
    """

    feature: str
    schema_says: str
    data_says: str
    edit: str


def find_differences(schema: schema_pb2.Schema, observed: Observation) -> list[Difference]:
    """Return the differences that would stop a run or break Transform, in order of the schema.

    If the schema allows more than the data contains, this is not a difference.
    """
    found = list(_environments(schema))
    declared = {feature.name: feature for feature in schema.feature}
    for name, feature in declared.items():
        tally = observed.features.get(name)
        if tally is None:
            found.append(
                Difference(
                    name,
                    "a feature",
                    "no Example of this configuration has it",
                    f'remove feature "{name}", or declare it in the configuration',
                )
            )
        else:
            found += _compare(schema, feature, tally)
    for name, tally in observed.features.items():
        if name not in declared:
            inferred = infer_feature(tally, closed=observed.is_complete)
            text = text_format.MessageToString(inferred, as_one_line=True, as_utf8=True)
            found.append(
                Difference(
                    name, "nothing", f"{tally.num_present:,} values", f"add feature {{ {text} }}"
                )
            )
    found += _bad_values(observed)
    return found


def _environments(schema: schema_pb2.Schema) -> Iterator[Difference]:
    missing = [e for e in (TIMELINES, CATALOGUE) if e not in schema.default_environment]
    if missing:
        names = " and ".join(missing)
        edit = " ".join(f'default_environment: "{name}"' for name in missing)
        yield Difference("", f"no environment {names}", "two kinds of Examples", f"add {edit}")


def _compare(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, tally: FeatureTally
) -> Iterator[Difference]:
    name = tally.name
    says_type = schema_pb2.FeatureType.Name(feature.type)
    if says_type != tally.value_type:
        yield Difference(name, f"type {says_type}", tally.value_type, f"type: {tally.value_type}")
        return
    if feature.HasField("shape"):
        yield Difference(
            name, "a fixed shape", "sparse, as every feature", "remove `shape`, keep `value_count`"
        )
    yield from _environment(feature, tally)
    yield from _number_of_values(feature, tally)
    if tally.value_type == "BYTES":
        yield from _string_domain(schema, feature, tally)
    else:
        yield from _range(feature, tally)


def _environment(feature: schema_pb2.Feature, tally: FeatureTally) -> Iterator[Difference]:
    if tally.side == "candidate_id":
        expected = set()
    else:
        expected = {TIMELINES if tally.side == "candidate" else CATALOGUE}
    says = set(feature.not_in_environment)
    if feature.in_environment:
        says |= {TIMELINES, CATALOGUE} - set(feature.in_environment)
    for environment in sorted(says - expected):
        yield Difference(
            tally.name,
            f"not in {environment}",
            f"{environment} Examples have it",
            f'remove not_in_environment: "{environment}"',
        )
    for environment in sorted(expected - says):
        yield Difference(
            tally.name,
            f"in {environment}",
            f"no {environment} Example has it",
            f'not_in_environment: "{environment}"',
        )


def _number_of_values(feature: schema_pb2.Feature, tally: FeatureTally) -> Iterator[Difference]:
    required = feature.presence.min_count > 0 or feature.presence.min_fraction > 0
    if not tally.num_present and required:
        yield Difference(
            tally.name,
            "present",
            f"no value in {tally.num_rows:,} rows",
            "remove `presence`, or restore the values in the data",
        )
    elif tally.num_missing and feature.value_count.min > 0:
        share = tally.num_missing / tally.num_rows
        yield Difference(
            tally.name,
            f"at least {feature.value_count.min} value",
            f"{tally.num_missing:,} of {tally.num_rows:,} rows have none ({share:.2%})",
            "value_count { min: 0 } and no presence.min_fraction",
        )
    if tally.is_list and feature.value_count.max == 1:
        yield Difference(
            tally.name, "at most 1 value", "a list of values", "remove value_count.max"
        )


def _string_domain(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, tally: FeatureTally
) -> Iterator[Difference]:
    domain = _domain_of(schema, feature)
    if domain is None:
        return
    if tally.values is None:
        data_says = (
            f"more than {MAX_COUNTED_VALUES:,} distinct values"
            if tally.counts_values
            else "IDs or free text"
        )
        yield Difference(
            tally.name, f"one of {len(domain)} values", data_says, "remove `string_domain`"
        )
        return
    new = {value: n for value, n in tally.values.most_common() if value not in domain}
    total = tally.values.total()
    # Share of the values that must be in the domain, with the same default as in TFDV.
    mass = 1.0
    if feature.HasField("distribution_constraints"):
        mass = feature.distribution_constraints.min_domain_mass
    if not new or total - sum(new.values()) >= mass * total:
        return
    shown = ", ".join(f"{value!r} {count:,}×" for value, count in list(new.items())[:_SHOWN])
    more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
    lines = " ".join(
        f"value: {json.dumps(value, ensure_ascii=False)}" for value in list(new)[:_SHOWN]
    )
    yield Difference(
        tally.name,
        f"one of {len(domain)} values",
        f"{len(new)} new: {shown}{more}",
        f"string_domain {{ {lines}{' …' if more else ''} }}",
    )


def _domain_of(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> set[str] | None:
    if feature.HasField("string_domain"):
        return set(feature.string_domain.value)
    if feature.HasField("domain"):
        for domain in schema.string_domain:
            if domain.name == feature.domain:
                return set(domain.value)
    return None


def _range(feature: schema_pb2.Feature, tally: FeatureTally) -> Iterator[Difference]:
    kind = "float_domain" if tally.value_type == "FLOAT" else "int_domain"
    if tally.minimum is None or tally.maximum is None or not feature.HasField(kind):
        return
    domain = getattr(feature, kind)
    if domain.HasField("min") and tally.minimum < domain.min:
        low = f"{tally.minimum:.10g}"
        yield Difference(
            tally.name, f"at least {domain.min:.10g}", f"down to {low}", f"{kind} {{ min: {low} }}"
        )
    if domain.HasField("max") and tally.maximum > domain.max:
        high = f"{tally.maximum:.10g}"
        yield Difference(
            tally.name, f"at most {domain.max:.10g}", f"up to {high}", f"{kind} {{ max: {high} }}"
        )


def _bad_values(observed: Observation) -> Iterator[Difference]:
    for bad, count in observed.bad_values.most_common():
        yield Difference(
            bad.column or "a row",
            "rows that can be read",
            f"{count:,} rows of {bad.source}: {bad.reason}, first {bad.example!r}",
            "none: fix the data, or set `ingest.bad_rows: reject`",
        )
