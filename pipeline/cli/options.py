"""Options that several commands share, and what they load."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig
    from serving.clients import TlsOptions

ConfigOption = Annotated[
    str, typer.Option("--config", help="Name under configs/, or a path that ends in .yaml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: section.key=value."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="gRPC address of a running server; without it the last push is served to ask.",
    ),
]
TlsCaOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Encrypt; PEM of the server's authority.")
]
TlsCertificateOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="Encrypt; PEM of this client's certificate.")
]
TlsKeyOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="PEM of the key to --tls-certificate.")
]
TlsNameOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Encrypt; name in the server's certificate.")
]


def load_config(name: str, overrides: list[str] | None = None) -> "PipelineConfig":
    """Loads a configuration, or ends the command with what is wrong with it."""
    from pipeline.config import ConfigError, load

    try:
        return load(name, overrides or ())
    except ConfigError as error:
        fail(str(error))


def split_ids(text: str | None) -> list[str]:
    """Returns the ids of a comma-separated option."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def tls_options(
    ca: str | None, certificate: str | None, key: str | None, name: str | None
) -> "TlsOptions | None":
    """Returns how to encrypt, None where no option asks for it."""
    if not (ca or certificate or key or name):
        return None
    from serving.clients import TlsOptions
    from serving.errors import InvalidArgumentError

    try:
        return TlsOptions(ca, certificate, key, name)
    except InvalidArgumentError as error:
        fail(str(error))
