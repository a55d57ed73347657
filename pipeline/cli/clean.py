"""`two-tower clean`: remove the outputs of old runs."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command import command
from pipeline.cli.options import Positive, Project
from pipeline.cli.output import Verbosity, fail, print_json, say
from pipeline.releases.answering_model import model_config_path

if TYPE_CHECKING:
    from pipeline.runs.cleaning import CleaningPlan


@command
def clean(
    project: Project,
    keep: Positive,
    yes: bool = False,
    model_config_file: Path | None = None,
    wait_s: float = 0.0,
    as_json: bool = False,
) -> None:
    """Remove the artifacts, logs and served versions of old runs.

    The command keeps the newest complete runs with the cached outputs that they used, up to the
    same number of index refreshes, runs in progress, incomplete runs after the last complete one,
    and the run of the last blessed model. It keeps the newest version, the versions of kept runs,
    and the versions in the model config file. Files that ML Metadata does not list for this project
    are never removed.

    Example: two-tower clean -c clicks --keep 14 --yes

    Args:
        keep (N): Number of complete runs to keep.
        yes: Remove the outputs. Without this option, they are only listed.
    """
    loaded = project.load()
    from pipeline.runs import cleaning
    from pipeline.runs.lock import run_lock
    from pipeline.runs.metadata import has_metadata, open_store

    if not has_metadata(loaded):
        fail(f"there is no run of {loaded.name} in {loaded.run_dir}, so nothing to clean")
    file = model_config_file or model_config_path(loaded)
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
        print_json(
            {
                "removed": yes,
                "size_bytes": plan.size_bytes,
                "kept_runs": plan.kept_runs,
                "kept_versions": plan.kept_versions,
                "removable": plan.removable,
            }
        )
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
