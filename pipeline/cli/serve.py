"""`two-tower serve`: the embedded model server on a configuration's pushed versions."""

import os
import sys
from typing import Annotated

import typer

from pipeline.cli.console import fail, stderr
from pipeline.cli.options import ConfigOption, SetOption, load_config
from pipeline.cli.releases import model_config_path
from pipeline.cli.served_model import refuse_remote


def serve(
    config: ConfigOption,
    port: Annotated[int, typer.Option(help="gRPC port.")] = 8500,
    rest_port: Annotated[int, typer.Option(help="REST port.")] = 8501,
    bind_address: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    set_: SetOption = None,
) -> None:
    """Serve the newest pushed version, and newer ones as they come.

    Once `two-tower promote` has been used, what it keeps is served instead: its versions with
    their labels. Remove that file to go back to the newest version.
    """
    loaded = load_config(config, set_)
    refuse_remote(loaded)
    if not os.path.isdir(loaded.serving_dir):
        fail(
            f"nothing has been pushed to {loaded.serving_dir} yet; run "
            f"`two-tower run --config {config}` first"
        )
    kept = model_config_path(loaded)
    if kept.exists():
        what = f"what is kept in {kept}"
        # A label may name a version that is still loading when the server starts.
        allow = "--allow_version_labels_for_unavailable_models=true"
        served = [f"--model_config_file={kept}", allow]
    else:
        what = loaded.serving_dir
        served = [
            f"--model_name={loaded.serving.model_name}",
            f"--model_base_path={loaded.serving_dir}",
        ]
    stderr().print(f"serving {what} as {loaded.serving.model_name}, Ctrl-C stops", soft_wrap=True)
    command = [
        sys.executable,
        "-m",
        "serving.server",
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--bind_address={bind_address}",
        *served,
    ]
    # The server takes this process's place: signals reach it, and its exit code is ours.
    os.execv(sys.executable, command)
