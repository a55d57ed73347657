"""`two-tower clean`: what old runs left, shown and then removed."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail, stdout
from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    QuietOption,
    SetOption,
    WaitOption,
    load_config,
)
from pipeline.cli.releases import ModelConfigFileOption, model_config_path

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.runs.cleaning import CleaningPlan


def clean(
    config: ConfigOption,
    keep: Annotated[int, typer.Option(min=1, help="How many complete runs stay.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove; without it, only show what would go.")
    ] = False,
    model_config_file: ModelConfigFileOption = None,
    set_: SetOption = None,
    wait_s: WaitOption = 0.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the artifacts, logs and served versions of old runs.

    What stays: all that the newest complete runs made or took from the cache, and as many index
    refreshes; runs under way, or not complete since the last that was; the run that made the last
    blessed model; the newest version, versions of kept runs, and those with a label or loaded
    according to the model config file; and what ML Metadata does not know of this use.
    """
    loaded = load_config(config, set_)
    from ml_metadata.errors import StatusError

    from pipeline.errors import (
        CleaningError,
        ConfigError,
        MetadataUnreachableError,
        ReleaseError,
        RunInProgressError,
    )
    from pipeline.runs.metadata import has_metadata

    if not has_metadata(loaded):
        fail(f"there is no run of {loaded.name} in {loaded.run_dir}: nothing to clean")
    file = Path(model_config_file) if model_config_file else model_config_path(loaded)
    if model_config_file and not file.exists():
        # Versions that a server has loaded would go.
        fail(f"there is no model config file {file}")
    try:
        plan = _clean(loaded, keep, file, wait_s, carry_out=yes)
    except (CleaningError, ReleaseError, RunInProgressError) as error:
        fail(str(error))
    except (ConfigError, MetadataUnreachableError) as error:
        fail(str(error))
    except StatusError as error:
        fail(f"ML Metadata cannot be used: {error}")
    except OSError as error:
        fail(f"{error}; run the command again to go on where it ended")
    if as_json or not quiet:
        _show(plan, removed=yes, as_json=as_json)


def _clean(
    config: "PipelineConfig", keep: int, file: Path, wait_s: float, *, carry_out: bool
) -> "CleaningPlan":
    from pipeline.runs import cleaning
    from pipeline.runs.lock import run_lock
    from pipeline.runs.metadata import open_store

    # Also to look: a run under way has artifacts that no complete run holds yet.
    with run_lock(config.run_dir, wait_s):
        store = open_store(config)
        plan = cleaning.plan_cleaning(config, store, keep, file)
        if carry_out:
            cleaning.carry_out(plan, store)
    return plan


def _show(plan: "CleaningPlan", *, removed: bool, as_json: bool) -> None:
    if as_json:
        content = {
            "removed": removed,
            "size_bytes": plan.size_bytes,
            "kept_runs": plan.kept_runs,
            "kept_versions": {str(k): why for k, why in plan.kept_versions.items()},
            "removable": [found.__dict__ for found in plan.removable],
        }
        print(json.dumps(content))
        return
    console = stdout()
    console.print(f"{'keeps':<10}{len(plan.kept_runs)} runs: {', '.join(plan.kept_runs)}")
    for version, why in plan.kept_versions.items():
        console.print(f"{'keeps':<10}version {version}: {why}", soft_wrap=True, markup=False)
    verb = "removed" if removed else "would go"
    by_kind = defaultdict(list)
    for found in plan.removable:
        by_kind[found.kind].append(found)
        console.print(
            f"{verb:<10}{found.kind:<15} {found.size_bytes / 1e6:8.1f} MB  {found.path}",
            soft_wrap=True,
            markup=False,
        )
    kinds = ", ".join(f"{len(found)} {kind}s" for kind, found in by_kind.items()) or "nothing"
    console.print(f"{verb:<10}{kinds}: {plan.size_bytes / 1e6:.1f} MB", markup=False)
    if plan.removable and not removed:
        console.print("`--yes` removes it")
