"""`two-tower evaluate`: measure a model and the baselines without a run."""

from typing import Literal

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import fail, log_to, print_json


@command
def evaluate(
    project: Project,
    model: str | None = None,
    protocol: Literal["auto", "from_cut", "rolling"] | None = None,
    as_json: bool = False,
) -> None:
    """Measure a model and the baselines on the held-out events of the newest run.

    Only a log is written, and no model is blessed. Exit code 0 means that the model was measured,
    not that the gate would accept it.

    Example: two-tower evaluate -c movielens_100k --protocol rolling

    Args:
        model (FOLDER): SavedModel of the towers, or a pushed version. By default, it is the newest
            trained model.
        protocol: How held-out events become queries. Short for --set evaluation.protocol=VALUE.
    """
    loaded = project.load(*([f"evaluation.protocol={protocol}"] if protocol else []))
    from pipeline.runs.history import new_run_id
    from pipeline.runs.metadata import has_metadata

    if not has_metadata(loaded):
        fail(
            f"there is no run of {loaded.name} in {loaded.run_dir}; run `two-tower run --config "
            f"{project.config}` first"
        )
    with log_to(loaded.run_dir / "logs" / f"evaluate-{new_run_id()}.log"):
        from pipeline.runs.evaluation import evaluate_model

        report = evaluate_model(loaded, model)
    if as_json:
        print_json(report)
        return
    from pipeline.cli.display import show_evaluation

    show_evaluation(report)
