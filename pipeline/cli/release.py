"""`two-tower promote` and `two-tower rollback`: set which model versions clients use."""

import fcntl
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    TlsCaOption,
    TlsCertificateOption,
    TlsKeyOption,
    TlsNameOption,
    load_config,
    tls_options,
)
from pipeline.cli.output import fail, print_json, say, waiting
from pipeline.cli.served_model import fail_without_push, pushed_versions, require_local

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.release import Release
    from serving.clients import TlsOptions, VersionStatus

VersionOption = Annotated[int | None, typer.Option(min=0, help="Number of the version.")]
ModelConfigFileOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The server's --model_config_file; models.config next to the folder of the versions "
        "if absent.",
    ),
]
_TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="gRPC address of the running server. Repeat it for replicas, or give dns:///NAME:PORT "
        "for all addresses of a name.",
        show_default="127.0.0.1:8500",
    ),
]
_TimeoutOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=1.0,
        help="How long a version may take to load; `serving.startup_timeout_s` if absent.",
    ),
]
_DEFAULT_TARGET = "127.0.0.1:8500"
_ALL_ADDRESSES = "dns:///"


@command
def promote(
    config: ConfigOption,
    version: VersionOption = None,
    canary: Annotated[
        bool, typer.Option("--canary", help="Set the label canary instead of stable.")
    ] = False,
    target: _TargetsOption = None,
    model_config_file: ModelConfigFileOption = None,
    timeout: _TimeoutOption = None,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a version the label stable, which clients ask for, or the label canary.

    Without --version, the canary is promoted, or the newest pushed version if there is none. The
    server loads the version before a label moves, and keeps the previous stable version for
    `two-tower rollback`. The model config file keeps versions and labels for a restart.

    Example: two-tower promote -c clicks --canary --target models.example:8500
    """
    loaded = load_config(config, set_)

    def decide(now: "Release", file: "ModelConfigFile") -> "Release":
        chosen = version
        if chosen is None and not canary:
            chosen = now.canary
        if chosen is None:
            base_path = file.server_base_path()
            pushed = pushed_versions(base_path) or pushed_versions(loaded.serving_dir)
            if not pushed:
                fail_without_push(loaded, config, "or name a version with --version")
            chosen = pushed[-1]
        return now.with_canary(chosen) if canary else now.promoted(chosen)

    tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
    _release(loaded, target, model_config_file, timeout, tls, decide, as_json)


@command
def rollback(
    config: ConfigOption,
    version: VersionOption = None,
    target: _TargetsOption = None,
    model_config_file: ModelConfigFileOption = None,
    timeout: _TimeoutOption = None,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the canary, or else undo the last promotion; --version makes that version stable.

    The server unloads the version that is rolled back. The model config file keeps the remaining
    ones for a restart.

    Example: two-tower rollback -c clicks
    """
    loaded = load_config(config, set_)
    tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
    _release(
        loaded,
        target,
        model_config_file,
        timeout,
        tls,
        lambda now, file: now.rolled_back(version),
        as_json,
    )


def model_config_path(config: "PipelineConfig") -> Path:
    """Return the default path of the model config file, next to the folder of the versions."""
    return Path(config.serving_dir).parent / "models.config"


def _release(
    config: "PipelineConfig",
    targets: list[str] | None,
    file: str | None,
    timeout_s: float | None,
    tls: "TlsOptions | None",
    decide: "Callable[[Release, ModelConfigFile], Release]",
    as_json: bool,
) -> None:
    """Apply the release that `decide` returns to all servers, and print the resulting states."""
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.rollout import Rollout
    from serving.clients.model_admin import ModelAdmin
    from serving.errors import ServingError

    if file is None:
        require_local(config, "or name the server's file with --model-config-file")
    path = Path(file) if file is not None else model_config_path(config)
    kept = ModelConfigFile(path, config.serving.model_name, config.serving_dir)
    addresses = _addresses(targets or [_DEFAULT_TARGET])
    with ExitStack() as stack:
        stack.enter_context(_exclusive(path))
        admins = [stack.enter_context(ModelAdmin(address, tls)) for address in addresses]
        wanted = decide(kept.release(), kept)
        for version in sorted(set(wanted.labels.values())):
            _require_on_disk(kept, version)
        rollout = Rollout(admins, kept, timeout_s or config.serving.startup_timeout_s)
        try:
            with waiting(f"waiting for {', '.join(addresses)}"):
                states = rollout.apply(wanted)
        except ServingError as error:
            fail(f"{', '.join(addresses)}: {error.code_name}: {error}")
    _show(wanted, states, path, as_json)


def _addresses(targets: Sequence[str]) -> list[str]:
    """Resolve each `dns:///` target to the addresses of all its replicas."""
    addresses = []
    for target in targets:
        name, _, port = target.removeprefix(_ALL_ADDRESSES).rpartition(":")
        if not target.startswith(_ALL_ADDRESSES):
            addresses.append(target)
            continue
        try:
            found = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            fail(f"--target {target} has no address: {error}")
        for family, _, _, _, address in found:
            host = f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])
            addresses.append(f"{host}:{port}")
    return sorted(set(addresses))


def _require_on_disk(file: "ModelConfigFile", version: int) -> None:
    """End the command if a version is missing, which servers report only after a timeout."""
    base_path = file.server_base_path()
    if not Path(base_path).is_dir():
        return  # The path is on the machine of the server, so it cannot be checked.
    present = pushed_versions(base_path)
    if version not in present:
        newest = ", ".join(map(str, present[-5:])) or "none"
        fail(f"version {version} is not in {base_path}; the newest versions there: {newest}")


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Lock a model config file, so that concurrent releases do not undo each other's changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"another release is using {path}; wait until it has ended")
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
        print_json(
            {
                "stable": release.stable,
                "canary": release.canary,
                "previous": release.previous,
                "versions": rows,
                "model_config_file": str(path),
            }
        )
        return
    for row in rows:
        labels = ", ".join(row["labels"]) or "no label: the target of a rollback"
        say(f"version {row['version']}  {row['state']}  {labels}")
    say(f"saved in {path}", style="dim")
