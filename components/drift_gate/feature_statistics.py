"""What TFDV's statistics say of one feature."""

from typing import Any, TypeAlias

from tensorflow_metadata.proto.v0 import statistics_pb2

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


def find_feature(name: str, statistics: Statistics) -> Any:
    """Returns the statistics of a feature; None where it was not looked at."""
    for dataset in statistics.datasets:
        for feature in dataset.features:
            if list(feature.path.step) == [name]:
                return feature
    return None


def has_values(name: str, statistics: Statistics | None) -> bool:
    """Whether there is a single value of a feature."""
    feature = None if statistics is None else find_feature(name, statistics)
    return feature is not None and bool(_common(feature).tot_num_values)


def share_missing(name: str, statistics: Statistics) -> float:
    """Returns the share of Examples without a value of a feature; 1 where there is no Example."""
    feature = find_feature(name, statistics)
    num_examples = sum(dataset.num_examples for dataset in statistics.datasets)
    if feature is None or not num_examples:
        return 1.0
    # An Example holds every key; a value that is missing is an empty list.
    present = sum(
        bucket.sample_count
        for bucket in _common(feature).num_values_histogram.buckets
        if bucket.high_value > 0
    )
    return 1 - float(present) / float(num_examples)


def _common(feature: Any) -> Any:
    return getattr(feature, feature.WhichOneof("stats")).common_stats
