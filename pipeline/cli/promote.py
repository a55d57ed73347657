"""`two-tower promote`: make a version the one that clients ask for, or try it first."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail
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
from pipeline.cli.releases import (
    ModelConfigFileOption,
    ServerOption,
    TimeoutOption,
    VersionOption,
    make_release,
    pushed_versions,
)

if TYPE_CHECKING:
    from pipeline.releases.model_config_file import ModelConfigFile
    from pipeline.releases.release import Release


def promote(
    config: ConfigOption,
    version: VersionOption = None,
    canary: Annotated[
        bool, typer.Option("--canary", help="Give it to those who ask for `canary` only.")
    ] = False,
    server: ServerOption = None,
    model_config_file: ModelConfigFileOption = None,
    timeout: TimeoutOption = None,
    tls_ca: TlsCaOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a version the label `stable`, which clients ask for, or with --canary `canary`.

    Without --version: the canary, else the newest version that was pushed. The server loads it
    before a label moves, and keeps what was stable until then for `two-tower rollback`. The model
    config file keeps versions and labels for a restart.
    """
    loaded = load_config(config, set_)

    def decide(now: "Release", file: "ModelConfigFile") -> "Release":
        chosen = version
        if chosen is None and not canary:
            chosen = now.canary
        if chosen is None:
            base_paths = (file.server_base_path(), loaded.serving_dir)
            pushed = pushed_versions(base_paths[0]) or pushed_versions(base_paths[1])
            if not pushed:
                fail(
                    f"nothing has been pushed to {loaded.serving_dir} yet; run "
                    f"`two-tower run --config {config}` first, or name a version with --version"
                )
            chosen = pushed[-1]
        return now.with_canary(chosen) if canary else now.promoted(chosen)

    tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
    make_release(loaded, server, model_config_file, timeout, tls, decide, as_json)
