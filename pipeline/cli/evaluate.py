"""`two-tower evaluate`: measure a model beside the baselines, without a run."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.json_output import json_text
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig


class Protocol(str, Enum):
    """How questions are made of the held-out events."""

    AUTO = "auto"
    FROM_CUT = "from_cut"
    ROLLING = "rolling"


def evaluate(
    config: ConfigOption,
    set_: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A SavedModel of the towers, or a pushed version. [default: the newest trained]",
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="Instead of the configuration's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on the held-out events of the newest run, beside the baselines.

    Nothing is written but a log, and nothing is blessed; the gate's checks are shown. Exit code 0
    says that it was measured, not that it is good.
    """
    overrides = [*(set_ or ())]
    if protocol is not None:
        overrides.append(f"evaluation.protocol={protocol.value}")
    report = _measure(load_config(config, overrides), model)
    if as_json:
        print(json_text(report))
        return
    from pipeline.cli.evaluation_display import evaluation_tables

    for shown in evaluation_tables(report):
        stdout().print(shown, markup=False, soft_wrap=isinstance(shown, str))


def _measure(config: "PipelineConfig", model: str | None) -> dict[str, Any]:
    from pipeline.cli.run_log import quiet
    from pipeline.runs.history import new_run_id
    from pipeline.runs.metadata import has_metadata

    if not has_metadata(config):
        fail(
            f"there is no run of {config.name} in {config.run_dir}; run `two-tower run --config "
            f"{config.name}` first"
        )
    problem, report = "", {}
    with quiet(config.run_dir / "logs" / f"evaluate-{new_run_id()}.log"):
        from pipeline.runs.evaluation import EvaluationError, evaluate_model

        try:
            report = evaluate_model(config, model)
        except EvaluationError as error:
            problem = str(error)
    if problem:
        fail(problem)
    return report
