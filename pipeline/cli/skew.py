"""`two-tower skew`: logged requests against what the model was trained on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.skew.comparison import SkewReport

_SKEWED = 3


def skew(
    config: ConfigOption,
    requests: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="TFRecords of PredictionLog, or bodies of requests as JSON lines."
        ),
    ],
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold logged requests against the training statistics of the newest run.

    Exit codes: 0 within the thresholds of `skew`, 1 failed, 3 beyond one.
    """
    loaded = load_config(config, set_)
    report = _compare(loaded, requests)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        _show(report)
    if report.is_skewed:
        raise typer.Exit(_SKEWED)


def _compare(config: "PipelineConfig", requests: Path) -> "SkewReport":
    from pipeline.cli.run_log import quiet
    from pipeline.runs.history import new_run_id

    if not config.run_dir.exists():
        fail(f"there is no run of {config.name} in {config.run_dir} to compare with")
    problem, report = "", None
    with quiet(config.run_dir / "logs" / f"skew-{new_run_id()}.log"):
        from ml_metadata.errors import StatusError

        from pipeline.errors import ConfigError, MetadataUnreachableError, RequestLogError
        from pipeline.runs.evaluation import EvaluationError
        from pipeline.skew.comparison import compare_requests

        try:
            report = compare_requests(config, requests)
        except (
            ConfigError,
            EvaluationError,
            MetadataUnreachableError,
            RequestLogError,
        ) as error:
            problem = str(error)
        except StatusError as error:
            problem = f"ML Metadata cannot be used: {error}"
    if report is None:
        fail(problem)
    return report


def _show(report: "SkewReport") -> None:
    import math

    console = stdout()
    plain: dict[str, Any] = {"soft_wrap": True, "markup": False}
    console.print(
        f"{report.num_queries:,} queries of {report.num_requests:,} requests, held against "
        f"{report.statistics}",
        **plain,
    )
    for finding in report.findings:
        if finding.threshold == math.inf:
            value = "not to be measured" if math.isnan(finding.value) else f"{finding.value:.4g}"
            shown = f"{finding.feature}: {finding.measure} {value}"
            console.print(f"  {'':<8} {shown}", **plain)
        else:
            mark = "BEYOND" if finding.is_exceeded else "within"
            console.print(f"  {mark:<8} {finding}", **plain)
