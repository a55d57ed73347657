"""What `two-tower promote` and `two-tower rollback` share."""

import fcntl
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.console import fail, stderr, stdout
from pipeline.cli.served_model import refuse_remote

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.release import Release
    from serving.clients import TlsOptions, VersionStatus

ServerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST:PORT",
        help="gRPC address of the running server, 127.0.0.1:8500 by default; several for replicas, "
        "or dns:///NAME:PORT for every address of a name.",
    ),
]
VersionOption = Annotated[int | None, typer.Option(min=0, help="Version, by its number.")]
ModelConfigFileOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="What the server was started with as --model_config_file; by default "
        "models.config beside the folder of the versions.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(min=1.0, help="Seconds for a version to load; by default the configuration's."),
]
_DEFAULT_SERVER = "127.0.0.1:8500"
_EVERY_ADDRESS = "dns:///"


def model_config_path(config: "PipelineConfig") -> Path:
    """Returns where releases of a configuration are kept: beside its base path."""
    return Path(config.serving_dir).parent / "models.config"


def make_release(
    config: "PipelineConfig",
    servers: list[str] | None,
    file: str | None,
    timeout_s: float | None,
    tls: "TlsOptions | None",
    decide: "Callable[[Release, ModelConfigFile], Release]",
    as_json: bool,
) -> None:
    """Brings a release to the servers and tells what they have then.

    Args:
        config: The use.
        servers: gRPC addresses, None for the one of `two-tower serve`.
        file: The model config file, None for the usual place.
        timeout_s: For versions to load, None for the configuration's.
        tls: Encrypts the connection.
        decide: Gives the release that is wanted after the one that there is.
        as_json: One JSON object instead of a table.
    """
    from pipeline.errors import ReleaseError
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.rollout import Rollout
    from serving.clients.model_admin import ModelAdmin
    from serving.errors import ServingError

    if file is None:
        refuse_remote(config, "or name the server's file with --model-config-file")
    path = Path(file) if file is not None else model_config_path(config)
    kept = ModelConfigFile(path, config.serving.model_name, config.serving_dir)
    addresses = _addresses(servers or [_DEFAULT_SERVER])
    try:
        with ExitStack() as stack:
            stack.enter_context(_alone(path))
            admins = [stack.enter_context(ModelAdmin(address, tls)) for address in addresses]
            target = decide(kept.release(), kept)
            for version in sorted(set(target.labels.values())):
                _require_on_disk(kept, version)
            rollout = Rollout(admins, kept, timeout_s or config.serving.startup_timeout_s)
            with stderr().status(f"waiting for {', '.join(addresses)}"):
                states = rollout.apply(target)
    except ReleaseError as error:
        fail(str(error))
    except ServingError as error:
        fail(f"{', '.join(addresses)}: {error.code_name()}: {error}")
    _show(target, states, path, as_json)


def pushed_versions(base_path: str) -> list[int]:
    """Returns the complete versions in a folder, oldest first; none if there is no such folder."""
    folder = Path(base_path)
    if not folder.is_dir():
        return []
    complete = (path.parent.name for path in folder.glob("*/saved_model.pb"))
    return sorted(int(name) for name in complete if name.isascii() and name.isdecimal())


def _addresses(servers: Sequence[str]) -> list[str]:
    """Every server by itself: a name that stands for replicas would give one of them."""
    addresses = []
    for server in servers:
        name, _, port = server.removeprefix(_EVERY_ADDRESS).rpartition(":")
        if not server.startswith(_EVERY_ADDRESS):
            addresses.append(server)
            continue
        try:
            found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            fail(f"--server {server} has no address: {error}")
        for family, _, _, _, address in found:
            host = f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])
            addresses.append(f"{host}:{port}")
    return sorted(set(addresses))


def _require_on_disk(file: "ModelConfigFile", version: int) -> None:
    """The server would say it too, but only after the time that a load may take."""
    base_path = file.server_base_path()
    if not Path(base_path).is_dir():
        return  # It is a path of the server's machine.
    there = pushed_versions(base_path)
    if version not in there:
        listed = ", ".join(map(str, there[-5:])) or "none"
        fail(f"version {version} is not in {base_path}; the newest there: {listed}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two releases at once would undo each other's steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"another release is under way with {path}; wait for it, or end it")
        yield


def _show(
    release: "Release", states: "dict[int, VersionStatus]", path: Path, as_json: bool
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "version": version,
            "labels": sorted(name for name, at in release.labels.items() if at == version),
            "state": states[version].state if version in states else "unknown",
        }
        for version in sorted(release.versions, reverse=True)
    ]
    if as_json:
        print(
            json.dumps(
                {
                    "stable": release.stable,
                    "canary": release.canary,
                    "previous": release.previous,
                    "versions": rows,
                    "model_config_file": str(path),
                }
            )
        )
        return
    for row in rows:
        labels = ", ".join(row["labels"]) or "no label: where a rollback goes"
        stdout().print(f"version {row['version']}  {row['state']}  {labels}")
    stdout().print(f"kept in {path}", style="dim", soft_wrap=True)
