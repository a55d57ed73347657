"""Inference of a schema from statistics of the data."""

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from models.features.spec import IS_TARGET_KEY, RATING_KEY
from pipeline.schema_inference.observation import FeatureTally, Observation

# Equal to those in components/stock/example_validator.py, which imports TensorFlow.
TIMELINES = "TIMELINES"
CATALOGUE = "CATALOGUE"

MAX_DOMAIN_VALUES = 50
# With fewer rows per value, new values are likely, so the feature gets no string domain.
_MIN_ROWS_PER_VALUE = 5

_HEADER = """\
# The schema of the Examples of {name}. A run stops if its data does not fit.
# It was inferred from the following data. Edit it freely.
{read}
#
# - A missing value is an empty list, so `value_count {{ min: 1 }}` means that a value is required.
#   Do not give a feature a `shape`: Transform must read all of them as sparse.
# - Timelines and the catalogue have different features, as `not_in_environment` says.
# - Columns with at most {max_values} values have a `string_domain`{domains}.
#   Other values stop a run; remove the domain if new values are allowed.
# - Only ratings have a range; add others with `float_domain {{ min: max: }}`.

"""


def infer_schema(observed: Observation) -> schema_pb2.Schema:
    """Return a schema that fits the observed data.

    It contains string domains only if all rows were read. Otherwise, a run would stop at values
    that are missing in the sample.
    """
    schema = schema_pb2.Schema(default_environment=[TIMELINES, CATALOGUE])
    for tally in observed.features.values():
        schema.feature.append(infer_feature(tally, closed=observed.is_complete))
    return schema


def infer_feature(tally: FeatureTally, *, closed: bool) -> schema_pb2.Feature:
    """Return the schema of one feature, with a string domain only if it is `closed`."""
    feature = schema_pb2.Feature(name=tally.name, type=tally.value_type)
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
    """Return a schema in text format, with a header of explanatory comments."""
    header = _HEADER.format(
        name=name,
        read="\n".join(f"# - {line}" for line in describe_read(observed).split(", ")),
        max_values=MAX_DOMAIN_VALUES,
        domains="" if observed.is_complete else " (none here, because not every row was read)",
    )
    return header + text_format.MessageToString(schema, as_utf8=True)


def describe_read(observed: Observation) -> str:
    """Describe the number of rows and files that were read from each input."""
    return ", ".join(
        f"{'all' if read.is_complete else 'the first'} {read.num_rows:,} rows of {source}"
        + (f" ({read.num_files} files)" if read.num_files > 1 else "")
        for source, read in observed.sources.items()
    )


def _set_domain(feature: schema_pb2.Feature, tally: FeatureTally, closed: bool) -> None:
    if tally.name == IS_TARGET_KEY:
        feature.int_domain.min, feature.int_domain.max = 0, 1
    elif tally.value_type == "FLOAT":
        if not tally.has_nan:
            feature.float_domain.disallow_nan = True
        if tally.name == RATING_KEY and tally.minimum is not None and tally.maximum is not None:
            feature.float_domain.min, feature.float_domain.max = tally.minimum, tally.maximum
    elif tally.values and closed and not tally.is_list:
        limit = min(MAX_DOMAIN_VALUES, tally.values.total() // _MIN_ROWS_PER_VALUE)
        if len(tally.values) <= limit:
            feature.string_domain.value.extend(sorted(tally.values))
