"""`two-tower clean`: remove the outputs of old runs."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import ConfigOption, JsonOption, SetOption, WaitOption, load_config
from pipeline.cli.output import Verbosity, fail, print_json, say
from pipeline.cli.release import ModelConfigFileOption, model_config_path

if TYPE_CHECKING:
    from pipeline.runs.cleaning import CleaningPlan


@command
def clean(
    config: ConfigOption,
    keep: Annotated[int, typer.Option(min=1, help="Number of complete runs to keep.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove; without it, only list what would be removed.")
    ] = False,
    model_config_file: ModelConfigFileOption = None,
    set_: SetOption = None,
    wait_s: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Remove the artifacts, logs and served versions of old runs.

    These are kept: the newest complete runs with the cached outputs that they used, and up to the
    same number of index refreshes; runs in progress, and incomplete runs after the last complete
    one; the run of the last blessed model; the newest version, versions of kept runs, and versions
    in the model config file; and files that ML Metadata does not list for this project.

    Example: two-tower clean -c clicks --keep 14 --yes
    """
    loaded = load_config(config, set_)
    from pipeline.runs import cleaning
    from pipeline.runs.lock import run_lock
    from pipeline.runs.metadata import has_metadata, open_store

    if not has_metadata(loaded):
        fail(f"there is no run of {loaded.name} in {loaded.run_dir}, so nothing to clean")
    file = Path(model_config_file) if model_config_file else model_config_path(loaded)
    if model_config_file and not file.exists():
        # Without the file, the command could remove versions that a server has loaded.
        fail(f"there is no model config file {file}")
    # Listing needs the lock too: the artifacts of a run in progress would look unused.
    with run_lock(loaded.run_dir, wait_s):
        store = open_store(loaded)
        plan = cleaning.plan_cleaning(loaded, store, keep, file)
        if yes:
            try:
                cleaning.carry_out(plan, store)
            except OSError as error:
                fail(f"{error}; run the command again to continue")
    if as_json:
        content = {
            "removed": yes,
            "size_bytes": plan.size_bytes,
            "kept_runs": plan.kept_runs,
            "kept_versions": {str(k): why for k, why in plan.kept_versions.items()},
            "removable": [found.__dict__ for found in plan.removable],
        }
        print_json(content)
    elif not Verbosity.quiet:
        _show(plan, removed=yes)


def _show(plan: "CleaningPlan", *, removed: bool) -> None:
    say(f"{'keep':<14}{len(plan.kept_runs)} runs: {', '.join(plan.kept_runs)}")
    for version, why in plan.kept_versions.items():
        say(f"{'keep':<14}version {version}: {why}")
    verb = "removed" if removed else "would remove"
    for found in plan.removable:
        say(f"{verb:<14}{found.kind:<15} {found.size_bytes / 1e6:8.1f} MB  {found.path}")
    counts = Counter(found.kind for found in plan.removable)
    kinds = ", ".join(f"{count} {kind}s" for kind, count in counts.items()) or "nothing"
    say(f"{verb:<14}{kinds}: {plan.size_bytes / 1e6:.1f} MB")
    if plan.removable and not removed:
        say("pass --yes to remove them")
