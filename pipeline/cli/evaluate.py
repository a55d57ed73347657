"""`two-tower evaluate`: measure a model and the baselines without a run."""

from enum import Enum
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config
from pipeline.cli.output import fail, log_to, print_json


class Protocol(str, Enum):
    """The way in which held-out events become evaluation queries."""

    AUTO = "auto"
    FROM_CUT = "from_cut"
    ROLLING = "rolling"


@command
def evaluate(
    config: ConfigOption,
    set_: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="SavedModel of the towers, or a pushed version; the newest trained if absent.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="Replaces `evaluation.protocol`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model and the baselines on the held-out events of the newest run.

    Only a log is written, and no model is blessed. Exit code 0 means that the model was measured,
    not that the gate would accept it.

    Example: two-tower evaluate -c movielens_100k --set evaluation.slices=[gender]
    """
    overrides = list(set_ or ())
    if protocol is not None:
        overrides.append(f"evaluation.protocol={protocol.value}")
    loaded = load_config(config, overrides)
    from pipeline.runs.history import new_run_id
    from pipeline.runs.metadata import has_metadata

    if not has_metadata(loaded):
        fail(
            f"there is no run of {loaded.name} in {loaded.run_dir}; run `two-tower run --config "
            f"{config}` first"
        )
    with log_to(loaded.run_dir / "logs" / f"evaluate-{new_run_id()}.log"):
        from pipeline.runs.evaluation import evaluate_model

        report = evaluate_model(loaded, model)
    if as_json:
        print_json(report)
        return
    from pipeline.cli.display import show_evaluation

    show_evaluation(report)
