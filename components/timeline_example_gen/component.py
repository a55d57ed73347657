"""The component that turns interaction logs into timelines."""

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.spans.pattern import ChosenSpans
from components.timeline_example_gen import executor
from components.timeline_example_gen.artifacts import IngestReport, RejectedRows
from components.timeline_example_gen.spec import (
    CONFIG_KEY,
    DATA_DIRECTORY_KEY,
    EXAMPLES_KEY,
    INPUT_FINGERPRINT_KEY,
    REJECTED_KEY,
    REPORT_KEY,
    SPAN_KEY,
    TimelineExampleGenSpec,
)
from models.features.spec import ColumnsConfig, FeaturesConfig, FeatureSpec


class TimelineExampleGen(base_beam_component.BaseBeamComponent):
    """Reads interactions, queries and catalogue; writes one Example a timeline.

    A full use:

    ```python
    data = DataConfig(
        interactions="/data/clicks-*.parquet",
        queries="/data/users.csv",
        candidates="/data/films.csv",
        bad_rows="reject",
    )
    columns = ColumnsConfig(query_id="user_id", candidate_id="film_id", timestamp="time")
    features = FeaturesConfig(
        query={"age": FeatureConfig(kind="numeric")},
        candidate={"title": FeatureConfig(kind="text")},
    )
    split = SplitConfig(method="temporal", eval_fraction=0.1)
    config = make_config(data, columns, features, split)
    example_gen = TimelineExampleGen(
        data, columns, features, split, input_fingerprint=fingerprint(config)
    )
    ```

    A minimal one, with the catalogue derived from the events:

    ```python
    example_gen = TimelineExampleGen(
        DataConfig(interactions="/data/clicks.csv"),
        ColumnsConfig(query_id="session_id", candidate_id="film_id"),
        split=SplitConfig(method="leave_last_out"),
    )
    ```

    Component `outputs` contains:

    - `examples`: `Examples` with the splits `train`, `eval`, `test` where configured, and
      `candidates`.
    - `rejected`: `RejectedRows`, the rows put aside under `bad_rows: reject`.
    - `report`: `IngestReport`, what was read, dropped, rejected and written.

    Without a changed `input_fingerprint` (see `source_files.fingerprint`) a cached run does not
    see that the files have changed.
    """

    SPEC_CLASS = TimelineExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        data: DataConfig,
        columns: ColumnsConfig,
        features: FeaturesConfig | None = None,
        split: SplitConfig | None = None,
        input_fingerprint: str = "",
        chosen_spans: ChosenSpans | None = None,
        data_directory: str | RuntimeParameter | None = None,
        span: str | RuntimeParameter | None = None,
    ):
        """Declares an ingestion.

        Args:
            data: The files, with absolute paths or URIs unless `data_directory` is given.
            columns: The columns that make a row an event.
            features: Features of queries and candidates; none if absent.
            split: Which events are held out.
            input_fingerprint: Hash of the input files, for the cache.
            chosen_spans: From `spans.choose_spans`; None: the executor chooses, and the cache
                takes an earlier choice for this one.
            data_directory: Where relative paths of `data` start, if only a run can tell.
            span: What `events.spans.last` is, if only a run can tell.
        """
        config = make_config(data, columns, features, split, chosen_spans)
        run_time = {DATA_DIRECTORY_KEY: data_directory, SPAN_KEY: span}
        super().__init__(
            spec=TimelineExampleGenSpec(
                **{
                    CONFIG_KEY: config.model_dump_json(),
                    INPUT_FINGERPRINT_KEY: input_fingerprint,
                    **{key: value for key, value in run_time.items() if value is not None},
                    EXAMPLES_KEY: Channel(type=standard_artifacts.Examples),
                    REJECTED_KEY: Channel(type=RejectedRows),
                    REPORT_KEY: Channel(type=IngestReport),
                }
            )
        )


def make_config(
    data: DataConfig,
    columns: ColumnsConfig,
    features: FeaturesConfig | None = None,
    split: SplitConfig | None = None,
    chosen_spans: ChosenSpans | None = None,
) -> IngestConfig:
    """Returns the configuration as the executor gets it and as `fingerprint` wants it."""
    return IngestConfig(
        data=data,
        split=split or SplitConfig(),
        spec=FeatureSpec(columns=columns, features=features or FeaturesConfig()),
        chosen_spans=chosen_spans,
    )
