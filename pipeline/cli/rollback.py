"""`two-tower rollback`: take back the last promotion, or the canary."""

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
)


def rollback(
    config: ConfigOption,
    version: VersionOption = None,
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
    """Take back the canary if there is one, else the last promotion; or make --version stable.

    The version that is taken back is unloaded. The model config file keeps what is loaded then
    for a restart.
    """
    loaded = load_config(config, set_)
    tls = tls_options(tls_ca, tls_certificate, tls_key, tls_name)
    make_release(
        loaded,
        server,
        model_config_file,
        timeout,
        tls,
        lambda now, file: now.rolled_back(version),
        as_json,
    )
