"""ModelFinder and ModelRecorder: find earlier blessed models without ML Metadata.

On a cluster they replace `components.blessed_models.resolvers`, and follow the same rules.
"""

from collections.abc import Callable

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Examples, Model, PushedModel
from tfx.utils import io_utils, path_utils

from components.artifacts import LAST_SPAN_PROPERTY
from components.blessed_models.records import BlessedRecord, find_record, write_record
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen
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
    baseline = ModelFinder(records=folder, current_model=trainer.outputs["model"])
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
    found = find_record(
        records,
        except_model=current_model and current_model.uri,
        except_examples=fitted_examples and fitted_examples.uri,
        before_span=newest_span(examples),
        why_not=_why_not(examples),
    )
    destination = path_utils.serving_model_dir(model.uri)
    if found is None:
        write_missing_model(destination, f"there is no suitable model in {records}")
    else:
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
    """Record a pushed model for `ModelFinder`; the last step of a run on a cluster.

    Args:
        model: The model of Trainer.
        fitted_examples: The transformed Examples that it was fitted on.
        examples: The ingested Examples.
        pushed_model: The output of Pusher, which pushes only blessed models.
        records: The folder of the records.
    """
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


def newest_span(examples: Artifact | None) -> int | None:
    """Return the newest span of ingested Examples, or None if they have no spans."""
    if examples is None or not examples.has_custom_property(LAST_SPAN_PROPERTY):
        return None
    return int(examples.span)


def _why_not(examples: Artifact | None) -> Callable[[BlessedRecord], str]:
    """Return the `why_not` of `find_record`."""
    if examples is None:
        return lambda record: ""
    now = HeldOut.parse(examples.get_string_custom_property(HELD_OUT_PROPERTY))
    return lambda record: why_seen(now, HeldOut.parse(record.held_out))
