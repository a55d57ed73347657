"""`two-tower serve`, and access to the server that other commands use or start."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from components import files
from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import fail, note, waiting

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.grpc_client import RetrievalClient

_OR_TARGET = ", or name a server with --target"


@command
def serve(
    project: Project,
    port: int = 8500,
    rest_port: int = 8501,
    bind_address: str = "127.0.0.1",
    request_log: Path | None = None,
) -> None:
    """Serve the newest pushed version, and newer ones after each push.

    After the first `two-tower promote`, the promoted versions are served with their labels
    instead. Remove the model config file to return to the newest version.

    Example: two-tower serve -c movielens_100k --port 8500

    Args:
        port: gRPC port.
        rest_port: REST port.
        bind_address (ADDRESS): Address to listen on.
        request_log (FOLDER): Folder for a log of the requests and the candidates they got.
    """
    loaded = project.load()
    require_local(loaded)
    if not os.path.isdir(loaded.serving_dir):
        fail_without_push(loaded, project.config)
    model_config = model_config_path(loaded)
    if model_config.exists():
        what = f"the versions in {model_config}"
        # When the server starts, a label may refer to a version that is still loading.
        allow = "--allow_version_labels_for_unavailable_models=true"
        served = [f"--model_config_file={model_config}", allow]
    else:
        what = loaded.serving_dir
        served = [f"--model_name={loaded.serving.model_name}", f"--model_base_path={what}"]
    note(f"serving {what} as {loaded.serving.model_name}; stop with Ctrl-C")
    if request_log is not None:
        served.append(f"--request_log_folder={request_log.absolute()}")
    listen = [f"--port={port}", f"--rest_api_port={rest_port}", f"--bind_address={bind_address}"]
    # The server replaces this process, so it receives signals and sets the exit status.
    os.execv(sys.executable, [sys.executable, "-m", "serving.server", *listen, *served])


def model_config_path(config: "PipelineConfig") -> Path:
    """Return the default path of the model config file, next to the folder of the versions."""
    return Path(config.serving_dir).parent / "models.config"


@contextmanager
def serving_target(config: "PipelineConfig", config_name: str, target: str | None) -> Iterator[str]:
    """Yield the gRPC address of a model server, which is started and stopped if `target` is None.

    The started server has the last pushed version. `config_name` is `--config`, for messages.
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
    if files.is_remote(config.serving_dir):
        fail(
            f"`serving.directory` {config.serving_dir} is not a folder of this machine; copy or "
            f"mount it and pass `--set serving.directory=FOLDER`{alternative}"
        )


def pushed_versions(folder: str) -> list[int]:
    """Return the numbers of the complete versions in a folder, oldest first."""
    return sorted(
        int(name)
        for name in files.list_folder(folder)
        if name.isascii() and name.isdecimal() and files.exists(f"{folder}/{name}/saved_model.pb")
    )


def fail_without_push(
    config: "PipelineConfig", config_name: str, alternative: str = ""
) -> NoReturn:
    """End the command with the error that no version has been pushed."""
    fail(
        f"nothing has been pushed to {config.serving_dir} yet; run "
        f"`two-tower run --config {config_name}` first{alternative}"
    )
