"""A client of the served model, on a running server or on one started for the command."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.cli.output import fail, waiting

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.grpc_client import RetrievalClient

_OR_TARGET = "or name a server with --target"


@contextmanager
def serving_target(config: "PipelineConfig", config_name: str, target: str | None) -> Iterator[str]:
    """Yield the gRPC address of a server.

    Args:
        config: The project.
        config_name: As the user gave it, for messages.
        target: Address of a running server; None starts one on the last pushed version.
    """
    from serving.launcher import running_model_server

    if target is not None:
        yield target
        return
    require_local(config, _OR_TARGET)
    if not pushed_versions(config.serving_dir):
        fail_without_push(config, config_name, _OR_TARGET)
    with ExitStack() as stack:
        with waiting("starting the model server"):
            server = stack.enter_context(
                running_model_server(
                    config.serving_dir,
                    config.serving.model_name,
                    timeout_s=config.serving.startup_timeout_s,
                )
            )
        yield server.grpc_target


@contextmanager
def served_model(
    config: "PipelineConfig", config_name: str, target: str | None
) -> Iterator["RetrievalClient"]:
    """Yield a client of `serving_target`."""
    from serving.clients.grpc_client import RetrievalClient

    with (
        serving_target(config, config_name, target) as address,
        RetrievalClient(
            address,
            config.serving.model_name,
            timeout_s=config.serving.request_timeout_s,
            query_id_name=config.events.query_id,
            candidate_id_name=config.events.candidate_id,
        ) as client,
    ):
        yield client


def possible_k(client: "RetrievalClient", config: "PipelineConfig", k: int) -> int:
    """Return `k`, or the size of the catalogue if that is smaller than `index.k`.

    A `k` above `index.k` stays, so that the client refuses it.
    """
    signature = client.metadata().signatures["serving_default"]
    shape = signature.outputs["candidate_ids"].shape
    width = shape[-1] if shape else None
    return width if width is not None and width < min(k, config.index.k) else k


def require_local(config: "PipelineConfig", alternative: str = "") -> None:
    """End the command if versions are pushed to an object store, which no local server reads."""
    if "://" in config.serving_dir:
        other = f", {alternative}" if alternative else ""
        fail(
            f"`serving.directory` {config.serving_dir} is not a folder of this machine; copy or "
            f"mount it and pass `--set serving.directory=FOLDER`{other}"
        )


def pushed_versions(folder: str) -> list[int]:
    """Return the complete versions in a folder, oldest first."""
    complete = (path.parent.name for path in Path(folder).glob("*/saved_model.pb"))
    return sorted(int(name) for name in complete if name.isascii() and name.isdecimal())


def fail_without_push(
    config: "PipelineConfig", config_name: str, alternative: str = ""
) -> NoReturn:
    """End the command because there is no version to serve."""
    other = f", {alternative}" if alternative else ""
    fail(
        f"nothing has been pushed to {config.serving_dir} yet; run "
        f"`two-tower run --config {config_name}` first{other}"
    )
