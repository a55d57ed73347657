"""ModelFinder and ModelRecorder: find earlier blessed models without ML Metadata.

On a cluster they replace `components.blessed_models.resolvers`, and follow the same rules.
"""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Examples, Model, PushedModel
from tfx.utils import io_utils, path_utils

from components import files
from components.artifacts import LAST_SPAN_PROPERTY
from components.blessed_models.records import (
    BlessedRecord,
    read_records,
    warm_start_record,
    write_record,
)
from components.errors import RecordError
from components.interactions.splits.held_out import HELD_OUT_PROPERTY
from models.missing_model import write_missing_model


@component
def ModelFinder(
    model: OutputArtifact[Model],
    records: Parameter[str],
    current_model: InputArtifact[Model] = None,
    fitted_examples: InputArtifact[Examples] = None,
    examples: InputArtifact[Examples] = None,
) -> None:
    """Find the newest recorded model and copy it.

    ```python
    last_blessed = ModelFinder(records=folder, current_model=trainer.outputs["model"])
    warm_start = ModelFinder(
        records=folder,
        fitted_examples=transform.outputs["transformed_examples"],
        examples=example_gen.outputs["examples"],
    )
    ```

    Args:
        model: The model, with a property that says which events were held out of its data. If no
            model is found, a marker instead (`models.missing_model`).
        records: The folder of the records.
        current_model: A model to skip.
        fitted_examples: Models that were fitted on these Examples are skipped.
        examples: The ingested Examples. Models that may have seen their held-out events are
            skipped. If they have spans, models of the same or later spans are skipped too.

    Raises:
        RecordError: A record cannot be read, or its model is gone.
    """
    others = [
        record
        for record in read_records(records)
        if record.model_uri != (current_model and current_model.uri)
        and record.examples_uri != (fitted_examples and fitted_examples.uri)
    ]
    if examples is None:
        found = next(iter(others), None)
    else:
        held_out = examples.get_string_custom_property(HELD_OUT_PROPERTY)
        found = warm_start_record(others, newest_span(examples), held_out)
    destination = path_utils.serving_model_dir(model.uri)
    if found is None:
        write_missing_model(destination, f"there is no suitable model in {records}")
        return
    if not files.exists(found.model_uri):
        raise RecordError(
            f"a record in {records} names the model {found.model_uri}, which is gone; restore it, "
            "or remove the record to continue without it"
        )
    model.set_string_custom_property(HELD_OUT_PROPERTY, found.held_out)
    io_utils.copy_dir(path_utils.serving_model_path(found.model_uri), destination)


@component
def ModelRecorder(
    model: InputArtifact[Model],
    fitted_examples: InputArtifact[Examples],
    examples: InputArtifact[Examples],
    pushed_model: InputArtifact[PushedModel],
    records: Parameter[str],
) -> None:
    """Record a model that Pusher has pushed for `ModelFinder`; the last step on a cluster."""
    write_record(
        records,
        BlessedRecord(
            model_uri=model.uri,
            examples_uri=fitted_examples.uri,
            pushed_version=pushed_model.get_string_custom_property("pushed_version"),
            span=newest_span(examples),
            held_out=examples.get_string_custom_property(HELD_OUT_PROPERTY),
        ),
    )


def newest_span(examples: Artifact) -> int | None:
    """Return the newest span of ingested Examples, or None if they have no spans."""
    return int(examples.span) if examples.has_custom_property(LAST_SPAN_PROPERTY) else None
