"""Warm start of the ranker: training that begins with the weights of an earlier one."""

from collections.abc import Mapping, Sequence

from models.features.spec import FeatureSpec
from models.features.vocabularies import read_vocabularies
from models.ranking.config import ARCHITECTURE
from models.ranking.ranker import Ranker
from models.ranking.saved_stage import StageSettings, load_ranker, read_settings
from models.training.checkpoints_and_early_stopping import progress
from models.training.warm_start import copy_rows, matching_rows

# What of a task the weights depend on.
_OF_TASK = ("name", "loss", "event_type", "column")


def restore_ranker(
    ranker: Ranker,
    settings: StageSettings,
    directory: str,
    spec: FeatureSpec,
    vocabularies: Mapping[str, Sequence[bytes]],
) -> str | None:
    """Copy the weights of the ranker in `directory`, matching the rows of tables by their values.

    If the ranker there has another architecture, other features or other tasks, or if there is
    none, nothing is copied, and a message in the log says why.

    Args:
        ranker: The new ranker.
        settings: Its settings.
        directory: Folder of the earlier exported towers.
        spec: The features.
        vocabularies: The values of each vocabulary of the new model.

    Returns:
        The folder of the earlier towers, or None if nothing was copied.
    """
    earlier = read_settings(directory)
    found = "it has no ranker" if earlier is None else _difference(earlier, settings, vocabularies)
    if earlier is None or found:
        progress.info("the ranker starts from random weights, not from %s: %s", directory, found)
        return None
    old_vocabularies = read_vocabularies(directory, spec)
    saved = load_ranker(directory, earlier, spec)
    tables = {
        layer.table(name).ref(): name
        for layer in (ranker.of_queries, ranker.of_candidates)
        for name in layer.names
        if name in vocabularies
    }
    for variable, old in zip(ranker.variables, saved.get_weights(), strict=True):
        name = tables.get(variable.ref())
        if name is None:
            variable.assign(old)
        else:
            copy_rows(variable, old, matching_rows(old_vocabularies[name], vocabularies[name]))
    progress.info("the ranker starts from that of %s", directory)
    return directory


def _difference(
    old: StageSettings, new: StageSettings, vocabularies: Mapping[str, Sequence[bytes]]
) -> str:
    """Return the first difference that weights depend on; "" if there is none.

    Tables of vocabularies may have other sizes.
    """

    def described(settings: StageSettings) -> dict[str, object]:
        tasks = [[getattr(task, key) for key in _OF_TASK] for task in settings.tasks]
        # Their order is that of the weights.
        sizes = [
            (name, "a vocabulary" if name in vocabularies else size)
            for name, size in settings.declared.items()
        ]
        return {
            **settings.model_dump(include=ARCHITECTURE),
            "features": [*settings.features],
            "declared features": sizes,
            "tasks": tasks,
        }

    before, after = described(old), described(new)
    return next(
        (
            f"{name} was {before[name]} and is {value}"
            for name, value in after.items()
            if before[name] != value
        ),
        "",
    )
