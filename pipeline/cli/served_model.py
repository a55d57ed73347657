"""A client for a configuration's served model, on a running server or one for the question."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.console import fail, stderr

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.grpc_client import RetrievalClient


@contextmanager
def serving_target(
    config: "PipelineConfig", config_name: str, target: str | None, option: str = "--target"
) -> Iterator[str]:
    """Yields the gRPC address of a server; one that cannot start ends the command with its text.

    Args:
        config: The use.
        config_name: As the user gave it, for the message that tells what to run.
        target: Address of a running server; None starts one on the last push.
        option: How a user names a running server, for the same message.
    """
    from serving.errors import LaunchError
    from serving.launcher import running_model_server

    if target is not None:
        yield target
        return
    refuse_remote(config, f"or name a server with {option}")
    if not _has_version(config.serving_dir):
        fail(
            f"nothing has been pushed to {config.serving_dir} yet; run "
            f"`two-tower run --config {config_name}` first, or name a server with {option}"
        )
    with ExitStack() as stack:
        try:
            with stderr().status("starting the model server"):
                server = stack.enter_context(
                    running_model_server(
                        config.serving_dir,
                        config.serving.model_name,
                        timeout_s=config.serving.startup_timeout_s,
                    )
                )
        except LaunchError as error:
            fail(str(error))
        yield server.grpc_target


@contextmanager
def served_model(
    config: "PipelineConfig", config_name: str, target: str | None
) -> Iterator["RetrievalClient"]:
    """Yields a client; a serving error inside ends the command with its text.

    Args:
        config: The use.
        config_name: As the user gave it, for the message that tells what to run.
        target: gRPC address of a running server; None starts one on the last push.
    """
    from serving.clients.grpc_client import RetrievalClient
    from serving.errors import ServingError

    with serving_target(config, config_name, target) as address:
        try:
            with RetrievalClient(
                address,
                config.serving.model_name,
                timeout_s=config.serving.request_timeout_s,
                query_id_name=config.columns.query_id,
                candidate_id_name=config.columns.candidate_id,
            ) as client:
                yield client
        except ServingError as error:
            fail(str(error))


def answerable_k(client: "RetrievalClient", config: "PipelineConfig", k: int) -> int:
    """Returns `k`, or the whole catalogue where that is smaller than an answer could be.

    A `k` beyond the model's own stays, for the client to refuse.
    """
    signature = client.metadata().signatures["serving_default"]
    shape = signature.outputs["candidate_ids"].shape
    width = shape[-1] if shape else None
    return width if width is not None and width < min(k, config.index.k) else k


def refuse_remote(config: "PipelineConfig", instead: str = "") -> None:
    """Ends the command where versions are pushed to an object store, which no server here reads.

    Args:
        config: The use.
        instead: What else can be done.
    """
    if "://" in config.serving_dir:
        other = f", {instead}" if instead else ""
        fail(
            f"`serving.directory` {config.serving_dir} is not a folder of this machine; copy or "
            f"mount it and give that with `--set serving.directory=FOLDER`{other}"
        )


def _has_version(serving_dir: str) -> bool:
    base = Path(serving_dir)
    return base.is_dir() and any(path.name.isdecimal() for path in base.iterdir())
