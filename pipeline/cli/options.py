"""Options that several commands share, and what they load."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import fail

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients import TlsOptions

ConfigOption = Annotated[
    str, typer.Option("--config", help="Name under configs/, or a path that ends in .yaml.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: section.key=value."),
]
SpanOption = Annotated[
    str | None,
    typer.Option(
        "--span",
        metavar="SPAN",
        help="Newest span to read: a number, a day as 2026-11-20, or newest; for "
        "--set events.spans.last=SPAN.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", help="Show nothing unless it fails or a gate refuses.")
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait for another run of the configuration to end; without it the "
        "command fails at once.",
    ),
]
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
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FEATURE=VALUE",
        help="Only candidates with this value of a feature in `index.filters`; again for another "
        "value that is also allowed, or for another feature that must match too.",
    ),
]


def span_override(span: str | None) -> list[str]:
    """Returns what `--span` overrides, for `load_config`."""
    import json

    # Quoted: YAML would read 0010 as the octal 8.
    return [] if span is None else [f"events.spans.last={json.dumps(span)}"]


def load_config(name: str, overrides: list[str] | None = None) -> "PipelineConfig":
    """Loads a configuration, or ends the command with what is wrong with it."""
    from pipeline.config.file import load
    from pipeline.errors import ConfigError

    try:
        return load(name, overrides or ())
    except ConfigError as error:
        fail(str(error))


def split_ids(texts: Sequence[str] | None) -> list[str]:
    """Returns the ids of an option: given several times, each time one or more between commas.

    An id that holds a comma stands in double quotes, as in CSV: `--history '"a,b",c'`.
    """
    import csv

    ids: list[str] = []
    for text in texts or ():
        quoted = '"' in text
        rows = csv.reader([text], skipinitialspace=True) if quoted else [text.split(",")]
        # Spaces around an id are a habit of writing lists; what is quoted is meant as it is.
        ids += [part if quoted else part.strip() for row in rows for part in row]
    return [part for part in ids if part]


def parse_filters(texts: Sequence[str] | None) -> dict[str, list[str]]:
    """Returns the allowed values by feature of `FEATURE=VALUE`s, or ends the command."""
    filters: dict[str, list[str]] = {}
    for text in texts or ():
        feature, equals, value = text.partition("=")
        if not (feature and equals and value):
            fail(f"--allow takes FEATURE=VALUE, got {text!r}")
        filters.setdefault(feature, []).append(value)
    return filters


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
