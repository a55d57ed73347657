"""Options that several commands share, and functions that parse their values."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients import TlsOptions


def _config_names(incomplete: str) -> list[str]:
    return sorted(p.stem for p in Path("configs").glob("*.yaml") if p.stem.startswith(incomplete))


Positive = Annotated[int, typer.Option(min=1)]
Port = Annotated[int, typer.Option(min=0, max=65535)]


@dataclass(frozen=True)
class Project:
    """Options that name a project and change its settings.

    Args:
        config (NAME): Name of a configuration in configs/, or a path that ends in .yaml.
        set_ (KEY=VALUE): Override a setting, such as training.epochs=10. Repeat it for more
            settings.
    """

    config: Annotated[str, typer.Option("--config", "-c", autocompletion=_config_names)]
    set_: list[str] | None = None

    def load(self, *overrides: str) -> "PipelineConfig":
        """Load the configuration; `overrides` have the form of `--set`."""
        from pipeline.config.file import load  # slow to import

        return load(self.config, [*(self.set_ or ()), *overrides])


@dataclass(frozen=True)
class Model:
    """Options that name the model that answers.

    Args:
        version (N): Number of a pushed version. By default, the stable version answers, or the
            newest one if none was promoted.
        run (ID): Use the model of this run, even if it was refused or not pushed. The first
            characters of the ID suffice.
    """

    version: Annotated[int | None, typer.Option(min=1)] = None
    run: Annotated[str | None, typer.Option("--run")] = None


@dataclass(frozen=True)
class SharedOptions:
    """Options that several commands share, as parameters with these names.

    Args:
        span (SPAN): Newest span to read: a number, a day such as 2026-11-20, or newest. Short for
            --set events.spans.last=SPAN.
        as_json: Print JSON instead of text.
        wait_s (SECONDS): Maximum time to wait until another run of this configuration ends.
        target (HOST:PORT): gRPC address of a running server. By default, the command starts a
            server with the model and stops it at the end.
        k: Number of candidates.
        allow (FEATURE=VALUE): Return only candidates whose feature has this value. The feature must
            be in `index.filters`. Repeat the option for more values or features.
        model_config_file (FILE): The server's --model_config_file. By default, it is models.config
            next to the folder of the versions.
        max_rows (N): Approximate maximum number of rows to read from each input.
    """

    span: str
    as_json: Annotated[bool, typer.Option("--json")]
    wait_s: Annotated[float, typer.Option("--wait", min=0)]
    target: str
    k: Annotated[int, typer.Option("-k", min=1)]
    allow: Annotated[list[str], typer.Option("--allow", "--filter")]
    model_config_file: Path
    max_rows: Positive


_ENCRYPTION = typer.Option(rich_help_panel="Encrypted connection")


@dataclass(frozen=True)
class Tls:
    """Options of an encrypted connection to a server.

    Args:
        tls_ca (FILE): PEM file of the authority that signed the server's certificate.
        tls_certificate (FILE): PEM file of this client's certificate.
        tls_key (FILE): PEM file of the private key for --tls-certificate.
        tls_name (NAME): Name in the server's certificate, if it differs from the host of the
            address.
    """

    tls_ca: Annotated[str | None, _ENCRYPTION] = None
    tls_certificate: Annotated[str | None, _ENCRYPTION] = None
    tls_key: Annotated[str | None, _ENCRYPTION] = None
    tls_name: Annotated[str | None, _ENCRYPTION] = None

    def for_client(self) -> "TlsOptions | None":
        """Return the options of a client, or None for an unencrypted connection."""
        given = (self.tls_ca, self.tls_certificate, self.tls_key, self.tls_name)
        if not any(given):
            return None
        from serving.clients import TlsOptions

        return TlsOptions(*given)


def span_override(span: str | None) -> list[str]:
    """Return the `--set` override that is equivalent to `--span`; empty if `span` is None."""
    # The quotes keep a wrong span, such as 1e3, as it was typed for the error message.
    return [] if span is None else [f"events.spans.last={json.dumps(span)}"]


def split_ids(texts: Sequence[str] | None) -> list[str]:
    """Split the comma-separated values of a repeatable option into IDs; empty IDs are dropped.

    IDs that contain a comma must be quoted as in CSV: `--history '"a,b",c'`.
    """
    import csv

    ids: list[str] = []
    for text in texts or ():
        quoted = '"' in text
        rows = csv.reader([text], skipinitialspace=True) if quoted else [text.split(",")]
        # People type spaces around commas, so unquoted IDs are stripped. Quoted IDs are literal.
        ids += [part if quoted else part.strip() for row in rows for part in row]
    return [part for part in ids if part]


def parse_filters(texts: Sequence[str] | None) -> dict[str, list[str]]:
    """Parse `--allow FEATURE=VALUE` options into a list of allowed values per feature."""
    filters: dict[str, list[str]] = {}
    for text in texts or ():
        feature, equals, value = text.partition("=")
        if not (feature and equals and value):
            raise typer.BadParameter(f"--allow takes FEATURE=VALUE, got {text!r}")
        filters.setdefault(feature, []).append(value)
    return filters
