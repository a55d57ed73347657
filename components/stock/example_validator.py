"""TFX's ExampleValidator, except that anomalies stop the run.

The schema has one environment for timelines and one for the catalogue. A feature that only one of
them has is `not_in_environment` of the other.
"""

import os
from typing import Any

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.components.example_validator import executor, labels
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from components.artifacts import Artifacts
from components.errors import AnomaliesError

TIMELINES_ENVIRONMENT = "TIMELINES"
CATALOGUE_ENVIRONMENT = "CATALOGUE"
_ANOMALIES_FILE = "SchemaDiff.pb"
_SHOWN = 5


class Executor(executor.Executor):
    """Run ExampleValidator, and fail if there are anomalies."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> execution_result_pb2.ExecutorOutput | None:
        """Validate every split; raise AnomaliesError if one has anomalies."""
        output: execution_result_pb2.ExecutorOutput = super().Do(
            input_dict, output_dict, exec_properties
        )
        artifact = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.ANOMALIES_KEY]
        )
        found = []
        for split in artifact_utils.decode_split_names(artifact.split_names):
            path = os.path.join(artifact_utils.get_split_uri([artifact], split), _ANOMALIES_FILE)
            found += _anomalies(split, path)
        if found:
            more = f" … and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise AnomaliesError(
                f"the data must fit the schema, but has {len(found)} "
                f"{'anomaly' if len(found) == 1 else 'anomalies'}: {'; '.join(found[:_SHOWN])}"
                f"{more}. Fix the data, or change the schema: `two-tower schema diff` shows the "
                "differences"
            )
        return output

    def _Validate(  # noqa: N802
        self, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> anomalies_pb2.Anomalies:
        directory = outputs[labels.SCHEMA_DIFF_PATH].rstrip("/")
        is_catalogue = os.path.basename(directory) == "Split-candidates"
        environment = CATALOGUE_ENVIRONMENT if is_catalogue else TIMELINES_ENVIRONMENT
        schema = inputs[standard_component_specs.SCHEMA_KEY]
        if environment not in schema.default_environment:
            return super()._Validate(inputs, outputs)
        statistics = without_empty_columns(inputs[standard_component_specs.STATISTICS_KEY])
        anomalies = tfdv.validate_statistics(statistics, schema, environment=environment)
        io_utils.write_bytes_file(
            os.path.join(directory, _ANOMALIES_FILE), anomalies.SerializeToString()
        )
        return anomalies


def without_empty_columns(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Return the statistics without features that have no value in any Example.

    Every Example has every key: a timeline has an empty list for each candidate feature, for
    example. A schema environment treats a feature as present if it has a key.
    """
    kept = statistics_pb2.DatasetFeatureStatisticsList()
    kept.CopyFrom(statistics)
    for dataset in kept.datasets:
        full = [
            feature
            for feature in dataset.features
            if getattr(feature, feature.WhichOneof("stats")).common_stats.tot_num_values
        ]
        del dataset.features[:]
        dataset.features.extend(full)
    return kept


def _anomalies(split: str, path: str) -> list[str]:
    anomalies = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
    found = [
        # TFDV ends a description with a full stop and a space, or with nothing.
        f"{split}: {feature}: {(info.description or info.short_description).rstrip('. ')}"
        for feature, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        found.append(f"{split}: {anomalies.dataset_anomaly_info.description}")
    return found
