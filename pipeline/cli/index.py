"""`two-tower index`: a changed catalogue into service, without fitting anew."""

from typing import TYPE_CHECKING

from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    QuietOption,
    SetOption,
    WaitOption,
    load_config,
)
from pipeline.cli.pipeline_command import run_pipeline_command

if TYPE_CHECKING:
    from pipeline.cli.run_display import RunDisplay
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.summary import RunSummary


def index(
    config: ConfigOption,
    set_: SetOption = None,
    wait_s: WaitOption = 0.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Refresh the index: read the catalogue anew, embed it with the last blessed model, push.

    Exit codes: 0 pushed, or nothing had changed; 1 failed; 3 refused by a gate: index or server.
    """

    def work(loaded: "PipelineConfig", run_id: str, display: "RunDisplay") -> "RunSummary":
        from pipeline.runs.run import refresh_index

        return refresh_index(loaded, run_id, display)

    run_pipeline_command(
        load_config(config, set_),
        work,
        command="index",
        wait_s=wait_s,
        quiet=quiet,
        as_json=as_json,
    )
