"""`two-tower serve`: start the model server with the pushed versions of a project."""

import os
import sys
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import ConfigOption, SetOption, load_config
from pipeline.cli.output import note
from pipeline.cli.release import model_config_path
from pipeline.cli.served_model import fail_without_push, require_local


@command
def serve(
    config: ConfigOption,
    port: Annotated[int, typer.Option(help="gRPC port.")] = 8500,
    rest_port: Annotated[int, typer.Option(help="REST port.")] = 8501,
    bind_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    set_: SetOption = None,
) -> None:
    """Serve the newest pushed version, and newer ones after each push.

    After the first `two-tower promote`, the promoted versions are served with their labels
    instead. Remove the model config file to return to the newest version.

    Example: two-tower serve -c movielens_100k --port 8500
    """
    loaded = load_config(config, set_)
    require_local(loaded)
    if not os.path.isdir(loaded.serving_dir):
        fail_without_push(loaded, config)
    model_config = model_config_path(loaded)
    if model_config.exists():
        what = f"the versions in {model_config}"
        # When the server starts, a label may refer to a version that is still loading.
        allow = "--allow_version_labels_for_unavailable_models=true"
        served = [f"--model_config_file={model_config}", allow]
    else:
        what = loaded.serving_dir
        served = [
            f"--model_name={loaded.serving.model_name}",
            f"--model_base_path={loaded.serving_dir}",
        ]
    note(f"serving {what} as {loaded.serving.model_name}; stop with Ctrl-C")
    command = [
        sys.executable,
        "-m",
        "serving.server",
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--bind_address={bind_address}",
        *served,
    ]
    # The server replaces this process, so it receives signals and sets the exit status.
    os.execv(sys.executable, command)
