"""`two-tower promote` and `two-tower rollback`: set which model versions clients use."""

import fcntl
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project, Tls
from pipeline.cli.outcomes import Joined
from pipeline.cli.output import fail, print_json, say, waiting
from pipeline.cli.serve import fail_without_push, require_local
from pipeline.releases.answering_model import model_config_path, pushed_versions

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from pipeline.outcomes.outcomes import Outcomes
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.release import Release
    from serving.clients import VersionStatus

_Version = Annotated[int, typer.Option(min=0)]
_DEFAULT_TARGET = "127.0.0.1:8500"
_ALL_ADDRESSES = "dns:///"


@dataclass(frozen=True)
class Servers:
    """Options that name the servers of a release.

    Args:
        target (HOST:PORT): gRPC address of the running server. Repeat it for replicas, or give
            dns:///NAME:PORT for all addresses of a name.
        timeout (SECONDS): Maximum time for a version to load. By default, it is
            `serving.startup_timeout_s`.
    """

    target: Annotated[list[str] | None, typer.Option(show_default=_DEFAULT_TARGET)] = None
    model_config_file: Path | None = None
    timeout: Annotated[float | None, typer.Option(min=1.0)] = None

    def addresses(self) -> list[str]:
        """Return the addresses of all targets; those with `dns:///` can have several replicas."""
        addresses = []
        for target in self.target or [_DEFAULT_TARGET]:
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


@command
def promote(
    project: Project,
    version: _Version | None = None,
    canary: bool = False,
    if_better: bool = False,
    joined: Joined = Joined(),
    servers: Servers = Servers(),
    tls: Tls = Tls(),
    as_json: bool = False,
) -> None:
    """Give the label stable or canary to a version, so that clients use it.

    Without --version, the canary is promoted, or the newest pushed version if there is none. The
    server loads the version before a label moves, and keeps the previous stable version for
    `two-tower rollback`. The model config file is updated, so that a restarted server has the same
    versions and labels.

    With --if-better, the canary is only promoted if its hit rate, by the request log and the events
    after it, is higher than that of the stable version with statistical confidence.

    Exit codes: 0 promoted; 1 failed; 2 wrong usage; 3 the canary is not better.

    Example: two-tower promote -c clicks --canary --target models.example:8500

    Args:
        version: Number of the version.
        canary: Give the label canary instead of stable.
        if_better: Promote the canary only if it is better than the stable version.
    """
    loaded = project.load()
    if if_better and (canary or version is not None):
        fail("--if-better promotes the canary, so --canary and --version must not be given", 2)
    outcomes = joined.measure(loaded) if if_better else None

    def decide(now: "Release", file: "ModelConfigFile") -> "Release":
        chosen = version
        if outcomes is not None:
            _require_better(now, outcomes, loaded.evaluation.min_queries)
        if chosen is None and not canary:
            chosen = now.canary
        if chosen is None:
            base_path = file.server_base_path()
            pushed = pushed_versions(base_path) or pushed_versions(loaded.serving_dir)
            if not pushed:
                fail_without_push(loaded, project.config, ", or name a version with --version")
            chosen = pushed[-1]
        return now.with_canary(chosen) if canary else now.promoted(chosen)

    _release(loaded, servers, tls, decide, as_json)


@command
def rollback(
    project: Project,
    version: _Version | None = None,
    servers: Servers = Servers(),
    tls: Tls = Tls(),
    as_json: bool = False,
) -> None:
    """Remove the canary. Without a canary, undo the last promotion.

    The server unloads the version that is rolled back. The model config file is updated, so that a
    restarted server has the remaining versions and labels.

    Example: two-tower rollback -c clicks

    Args:
        version: Give the label stable to this version instead, and remove the canary.
    """
    _release(project.load(), servers, tls, lambda now, file: now.rolled_back(version), as_json)


def _require_better(now: "Release", outcomes: "Outcomes", min_queries: int) -> None:
    """End the command with status 3 unless the canary is better than the stable version."""
    if now.canary is None or now.stable is None:
        fail("--if-better needs a canary and a stable version, but one of them is missing", 3)
    for version in (now.canary, now.stable):
        found = outcomes.of_versions.get(version)
        number = 0 if found is None else found[0].num_queries
        if number < min_queries:
            fail(
                f"the request log must have answers of version {version} to at least {min_queries} "
                f"queries (`evaluation.min_queries`), but has {number}. Nothing was promoted",
                3,
            )
    difference = outcomes.difference(now.canary, now.stable)
    rates = [outcomes.of_versions[v][0].hit_rate.value for v in (now.canary, now.stable)]
    text = (
        f"the hit rate of canary {now.canary} is {rates[0]:.4f}, that of stable {now.stable} is "
        f"{rates[1]:.4f}; the 95% interval of the difference is {difference.low:.4f} to "
        f"{difference.high:.4f}"
    )
    if not difference.low > 0:
        fail(f"{text}, but must be above 0. Nothing was promoted", 3)
    say(text)


def _release(
    config: "PipelineConfig",
    servers: Servers,
    tls: Tls,
    decide: "Callable[[Release, ModelConfigFile], Release]",
    as_json: bool,
) -> None:
    """Apply the release that `decide` returns to all servers, and print the resulting states."""
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.rollout import Rollout
    from serving.clients.model_admin import ModelAdmin
    from serving.errors import ServingError, UnavailableError

    if servers.model_config_file is None:
        require_local(config, ", or name the server's file with --model-config-file")
    path = servers.model_config_file or model_config_path(config)
    file = ModelConfigFile(path, config.serving.model_name, config.serving_dir)
    addresses = servers.addresses()
    with ExitStack() as stack:
        stack.enter_context(_exclusive(path))
        options = tls.for_client()
        admins = [stack.enter_context(ModelAdmin(address, options)) for address in addresses]
        wanted = decide(file.release(), file)
        for version in sorted(set(wanted.labels.values())):
            _require_on_disk(file.server_base_path(), version)
        rollout = Rollout(admins, file, servers.timeout or config.serving.startup_timeout_s)
        try:
            with waiting(f"waiting for {', '.join(addresses)}"):
                states = rollout.apply(wanted)
        except ServingError as error:
            start = "; start a server with `two-tower serve`, or name one with --target"
            advice = start if isinstance(error, UnavailableError) else ""
            fail(f"{', '.join(addresses)}: {error.code_name}: {error}{advice}")
    _show(wanted, states, path, as_json)


def _require_on_disk(base_path: str, version: int) -> None:
    """End the command if a version is missing, which servers report only after a timeout."""
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
        names = ("stable", "canary", "previous")
        labels = {name: getattr(release, name) for name in names}
        print_json({**labels, "versions": rows, "model_config_file": str(path)})
        return
    for row in rows:
        shown = ", ".join(row["labels"]) or "no label: the target of a rollback"
        say(f"version {row['version']}  {row['state']}  {shown}")
    say(f"saved in {path}", style="dim")
