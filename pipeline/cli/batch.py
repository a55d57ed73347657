"""`two-tower batch`: write recommendations for many queries to Parquet files."""

import os
import time
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Model, Project, parse_filters
from pipeline.cli.output import Verbosity, log_to, print_json, say, waiting
from pipeline.cli.serve import local_model

_SEEN = typer.Option("--exclude-seen/--include-seen")


@command
def batch(
    project: Project,
    output: str,
    queries: str | None = None,
    k: int = 50,
    exclude_seen: Annotated[bool, _SEEN] = True,
    allow: list[str] | None = None,
    model: Model = Model(),
    as_json: bool = False,
) -> None:
    """Recommend candidates for all known queries, or those of a file, and write Parquet files.

    The answers are those of the served model, computed with Beam as `beam` configures it. The
    histories are those that the newest run ingested. The output appears when it is complete; an
    interrupted command continues where it ended.

    Example: two-tower batch -c movielens_100k --output recommendations -k 20

    Args:
        output (FOLDER): Folder or URI for the files, which is new or an earlier output.
        queries (FILE): File with a column of query IDs, like `queries.file`, and possibly their
            features. Queries without events are answered from their features.
        exclude_seen: Leave out the candidates of a query's history.
    """
    filters = parse_filters(allow)
    loaded = project.load()
    chosen = local_model(loaded, project.config, model)
    started = time.monotonic()
    log_path = loaded.run_dir / "logs" / "batch.log"
    where, asked = (
        path if path is None or "://" in path else os.path.abspath(path)
        for path in (output, queries)
    )
    with log_to(log_path) as terminal, waiting("recommending", terminal):
        from pipeline.runs.batch import recommend_all

        report = recommend_all(
            loaded,
            chosen,
            str(where),
            k=k,
            exclude_seen=exclude_seen,
            filters=filters,
            queries=asked,
        )
    seconds = time.monotonic() - started
    if as_json:
        print_json({**report, "output": where, "model": str(chosen), "seconds": seconds})
    elif not Verbosity.quiet:
        say(f"queries   {report['num_queries']:,}, {report['num_unknown']:,} without events")
        number = report["plan"]["num_files"]
        in_files = f"{number:,} file{'s' if number > 1 else ''} in {where}"
        say(f"rows      {report['num_rows']:,} in {in_files}")
        say(f"model     {str(chosen).removeprefix('model ')}")
        say(f"time      {seconds:.1f} s")
