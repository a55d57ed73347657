"""Turns what was observed into a schema that the observed data fits."""

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from models.features.spec import IS_TARGET_KEY, RATING_KEY
from pipeline.schema_inference.feature_tally import FeatureTally
from pipeline.schema_inference.observation import Observation

# As in components/stock/example_validator.py, which would import TensorFlow.
TIMELINES = "TIMELINES"
CATALOGUE = "CATALOGUE"

MAX_DOMAIN_VALUES = 50
# Fewer rows a value, and the next value that is new is a matter of time: not a closed set.
_MIN_ROWS_A_VALUE = 5

_HEADER = """\
# What the Examples of {name} must be; the run stops at data that differs.
# Inferred; now it is yours to edit. Read for it:
{read}
#
# - An Example holds an empty list for a missing value, so `value_count {{ min: 1 }}` says that a
#   value must be there. Give no feature a `shape`: Transform must read all of them as sparse.
# - Timelines and catalogue have different features: `not_in_environment` tells them apart.
# - `string_domain` stands where a column has at most {max_values} values{domains}.
#   Others stop the run; remove the domain where new ones are welcome.
# - Ranges are left open but for the ratings; narrow them with `float_domain {{ min: max: }}`.

"""


def infer_schema(observed: Observation) -> schema_pb2.Schema:
    """Returns a schema that accepts what was observed.

    String domains are written only where every row was read: what a part of the rows lacks would
    else stop the run.
    """
    schema = schema_pb2.Schema(default_environment=[TIMELINES, CATALOGUE])
    for tally in observed.features.values():
        schema.feature.append(infer_feature(tally, closed=observed.is_complete))
    return schema


def infer_feature(tally: FeatureTally, *, closed: bool) -> schema_pb2.Feature:
    """Returns the schema of one feature.

    Args:
        tally: What its values are.
        closed: Whether values that were not seen are wrong.
    """
    feature = schema_pb2.Feature(
        name=tally.name, type=schema_pb2.FeatureType.Value(tally.value_type)
    )
    if tally.num_present:
        feature.presence.min_count = 1
    if tally.num_present and not tally.num_missing:
        feature.presence.min_fraction = 1.0
    feature.value_count.min = 0 if tally.num_missing else 1
    if not tally.is_list:
        feature.value_count.max = 1
    _set_domain(feature, tally, closed)
    if tally.side != "candidate_id":
        other = TIMELINES if tally.side == "candidate" else CATALOGUE
        feature.not_in_environment.append(other)
    return feature


def schema_text(schema: schema_pb2.Schema, observed: Observation, name: str) -> str:
    """Returns a schema as a file that explains itself."""
    header = _HEADER.format(
        name=name,
        read="\n".join(f"# - {line}" for line in describe_read(observed).split(", ")),
        max_values=MAX_DOMAIN_VALUES,
        domains="" if observed.is_complete else " (none here: not every row was read)",
    )
    return header + text_format.MessageToString(schema, as_utf8=True)


def describe_read(observed: Observation) -> str:
    """Returns how much of which files was read, for people."""
    return ", ".join(
        f"{'all' if read.is_complete else 'the first'} {read.num_rows:,} rows of {source}"
        + (f" ({read.num_files} files)" if read.num_files > 1 else "")
        for source, read in observed.sources.items()
    )


def _set_domain(feature: schema_pb2.Feature, tally: FeatureTally, closed: bool) -> None:
    if tally.name == IS_TARGET_KEY:
        feature.int_domain.min, feature.int_domain.max = 0, 1
    elif tally.value_type == "FLOAT":
        feature.float_domain.disallow_nan = True
        if tally.name == RATING_KEY and tally.minimum is not None and tally.maximum is not None:
            feature.float_domain.min, feature.float_domain.max = tally.minimum, tally.maximum
    elif tally.values and closed and not tally.is_list:
        num_values = len(tally.values)
        if (
            num_values <= MAX_DOMAIN_VALUES
            and num_values * _MIN_ROWS_A_VALUE <= tally.values.total()
        ):
            feature.string_domain.value.extend(sorted(tally.values))
