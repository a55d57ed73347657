"""`two-tower serve`, and access to the server that other commands use or start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

import typer

from components import files
from pipeline.cli.command import command
from pipeline.cli.options import Model, Port, Project
from pipeline.cli.output import fail, log_to, note, waiting
from pipeline.releases.answering_model import (
    AnsweringModel,
    answering_model,
    answering_version,
    model_config_path,
    pushed_versions,
    stable_version,
)
from pipeline.releases.release import STABLE

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients.grpc_client import RetrievalClient

_OR_RUN = ", or ask the model of a run that was not pushed with --run"
_OR_TARGET = ", or name a server with --target"


@command
def serve(
    project: Project,
    port: Port = 8500,
    rest_port: Port = 8501,
    bind_address: str = "127.0.0.1",
    request_log: Path | None = None,
    explore: bool = False,
    explore_port: Port = 8502,
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
        explore: Also serve the page of `two-tower explore`, which asks this server.
        explore_port: Port of that page.
    """
    if explore and not port:
        raise typer.BadParameter("--explore asks the server over gRPC, so --port must not be 0")
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
    pushed = pushed_versions(loaded.serving_dir)
    version, reason = answering_version(loaded, pushed) if pushed else (None, "")
    asked = f" to requests for the label {STABLE}" if reason == STABLE else ""
    note(f"serving {what} as {loaded.serving.model_name}; stop with Ctrl-C")
    if request_log is not None:
        served.append(f"--request_log_folder={request_log.absolute()}")
    if version is not None:
        note(f"version {version} answers{asked}, because it is the {reason} one")
    if explore:
        _start_explorer(project, bind_address, port, explore_port)
    listen = [f"--port={port}", f"--rest_api_port={rest_port}", f"--bind_address={bind_address}"]
    # The server replaces this process, so it receives signals and sets the exit status.
    os.execv(sys.executable, [sys.executable, "-m", "serving.server", *listen, *served])


def _start_explorer(project: Project, bind_address: str, port: int, explore_port: int) -> None:
    """Start the explorer as a process that ends with the server, which replaces this process."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(bind_address, bind_address)
    words = ["explore", "--config", project.config, "--target", f"{host}:{port}"]
    words += [word for override in project.set_ or () for word in ("--set", override)]
    words += ["--port", str(explore_port), "--bind-address", bind_address]
    words += ["--parent-pid", str(os.getpid())]
    main = "from pipeline.cli.main import main; main()"
    subprocess.Popen([sys.executable, "-c", main, *words])


def chosen_model(
    config: "PipelineConfig", config_name: str, options: Model, target: str | None
) -> AnsweringModel | None:
    """Return the model that `options` name, or None if the server `target` answers.

    `config_name` is `--config`, for messages.
    """
    if target is not None:
        if options.run is not None:
            raise typer.BadParameter("--run cannot be combined with --target")
        return None
    return local_model(config, config_name, options, _OR_TARGET)


def local_model(
    config: "PipelineConfig", config_name: str, options: Model, alternative: str = ""
) -> AnsweringModel:
    """Return the model that `options` name, which is on this machine."""
    require_local(config, alternative)
    if options.run is not None:
        log_path = config.run_dir / "logs" / "models.log"
        with log_to(log_path) as terminal, waiting("finding the model", terminal):
            return answering_model(config, run=options.run)
    if options.version is None and not pushed_versions(config.serving_dir):
        fail_without_push(config, config_name, _OR_RUN + alternative)
    return answering_model(config, options.version)


@contextmanager
def serving_target(
    config: "PipelineConfig", model: AnsweringModel | None, target: str | None
) -> Iterator[str]:
    """Yield the gRPC address of a model server; if `target` is None, one is started and stopped.

    The started server has only `model`.
    """
    from serving.launcher import running_model_server

    if model is None or target is not None:
        yield str(target)
        return
    with ExitStack() as stack:
        base = stack.enter_context(TemporaryDirectory(prefix="answering_model_"))
        os.symlink(os.path.abspath(model.path), f"{base}/{model.version or 1}")
        with waiting("starting the model server"):
            server = stack.enter_context(
                running_model_server(
                    base, config.serving.model_name, timeout_s=config.serving.startup_timeout_s
                )
            )
        yield server.grpc_target


@contextmanager
def served_model(
    config: "PipelineConfig", config_name: str, options: Model, target: str | None
) -> Iterator[tuple["RetrievalClient", AnsweringModel]]:
    """Yield a client, and the model that answers it.

    The model of a server `target` has the version in `options` or, after a promotion, the label
    `stable`.
    """
    from serving.clients.grpc_client import RetrievalClient

    model = chosen_model(config, config_name, options, target)
    label, version = None, options.version
    if model is None and version is None and stable_version(config) is not None:
        label = STABLE
    with (
        serving_target(config, model, target) as address,
        RetrievalClient(
            address,
            config.serving.model_name,
            model_version=version,
            version_label=label,
            timeout_s=config.serving.request_timeout_s,
            query_id_name=config.events.query_id,
            candidate_id_name=config.events.candidate_id,
        ) as client,
    ):
        yield client, model or AnsweringModel(address, version, label or "")


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


def fail_without_push(
    config: "PipelineConfig", config_name: str, alternative: str = ""
) -> NoReturn:
    """End the command with the error that no version has been pushed."""
    fail(
        f"nothing has been pushed to {config.serving_dir} yet; run "
        f"`two-tower run --config {config_name}` first{alternative}"
    )
