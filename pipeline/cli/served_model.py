"""Access to the served model on a running server, or on one that is started for the command."""

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
    """Yield the gRPC address of a model server, which is started and stopped if `target` is None.

    Args:
        config: The configuration of the project.
        config_name: Value of `--config`, for messages.
        target: Address of a running server, or None to start one with the last pushed version.
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
    """Yield a client that is connected to the server of `serving_target`."""
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
    """Return `k`, or the size of the catalogue if it is smaller than both `k` and `index.k`.

    With a larger catalogue, a `k` above `index.k` is returned unchanged, and the client refuses it.
    """
    signature = client.metadata().signatures["serving_default"]
    shape = signature.outputs["candidate_ids"].shape
    width = shape[-1] if shape else None
    return width if width is not None and width < min(k, config.index.k) else k


def require_local(config: "PipelineConfig", alternative: str = "") -> None:
    """End the command if versions are in an object store, which a local server cannot read."""
    if "://" in config.serving_dir:
        other = f", {alternative}" if alternative else ""
        fail(
            f"`serving.directory` {config.serving_dir} is not a folder of this machine; copy or "
            f"mount it and pass `--set serving.directory=FOLDER`{other}"
        )


def pushed_versions(folder: str) -> list[int]:
    """Return the numbers of the complete versions in a folder, oldest first."""
    complete = (path.parent.name for path in Path(folder).glob("*/saved_model.pb"))
    return sorted(int(name) for name in complete if name.isascii() and name.isdecimal())


def fail_without_push(
    config: "PipelineConfig", config_name: str, alternative: str = ""
) -> NoReturn:
    """End the command with the error that no version has been pushed."""
    other = f", {alternative}" if alternative else ""
    fail(
        f"nothing has been pushed to {config.serving_dir} yet; run "
        f"`two-tower run --config {config_name}` first{other}"
    )
