"""`two-tower explore`: a web page to try the models of a project."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Model, Port, Project
from pipeline.cli.output import fail, note, say, waiting
from pipeline.cli.serve import chosen_model, served_model
from pipeline.releases.answering_model import AnsweringModel, pushed_versions

if TYPE_CHECKING:
    from serving.clients.grpc_client import RetrievalClient
    from serving.clients.model import VersionStatus

_POLL_S = 0.5
_PARENT = typer.Option(hidden=True)


@command
def explore(
    project: Project,
    port: Port = 8502,
    bind_address: str = "127.0.0.1",
    model: Model = Model(),
    target: str | None = None,
    parent_pid: Annotated[int | None, _PARENT] = None,
) -> None:
    """Serve a page on which people try the models of a project.

    The page shows recommendations for a known query or for items that you pick: with item fields,
    scores, the share of each history item, filters, exclusions, similar items, and two versions,
    runs or baselines side by side. Stop it with Ctrl-C.

    Example: two-tower explore -c movielens_100k

    Args:
        port: Port of the page; 0 takes a free one.
        bind_address (ADDRESS): Address to listen on. Everybody who can reach it can see the
            histories of all queries.
        parent_pid: Stop when the parent process is no longer this one.
    """
    loaded = project.load()
    chosen = chosen_model(loaded, project.config, model, target)
    from pipeline.explore.choices import DEFAULT, Choices
    from pipeline.explore.page import Explorer
    from pipeline.explore.server import ExplorerServer
    from pipeline.explore.source import Histories, Items
    from serving.errors import StartupError

    try:
        server = ExplorerServer(bind_address, port)
    except StartupError as error:
        fail(str(error))

    @contextmanager
    def connect(
        version: int | None, run: str | None
    ) -> "Iterator[tuple[RetrievalClient, AnsweringModel]]":
        asked = model if version is None and run is None else Model(version, run)
        with served_model(loaded, project.config, asked, target) as found:
            yield found

    with waiting("reading the events"):
        histories = Histories(loaded)
        items = Items(loaded, histories)
    if target is None:
        versions = pushed_versions(loaded.serving_dir)
    else:
        with connect(None, None) as (client, _):
            versions = sorted(of.version for of in _status(client, parent_pid) if of.is_available)
    run_id, has_runs = chosen.run if chosen else None, target is None
    with Choices(loaded, items, connect, versions, run_id, has_runs=has_runs) as choices:
        _, answering = choices.model(DEFAULT)
        explorer = Explorer(loaded, histories, items, choices)
        note(f"{answering} answers; stop with Ctrl-C")
        asyncio.run(server.serve(explorer, lambda: say(server.url), parent_pid))


def _status(client: "RetrievalClient", parent_pid: int | None) -> "list[VersionStatus]":
    """Return the states of the server's versions; wait while the server `parent_pid` starts."""
    from serving.errors import UnavailableError

    while True:
        try:
            return client.status()
        except UnavailableError:
            if os.getppid() != parent_pid:
                raise
        time.sleep(_POLL_S)
