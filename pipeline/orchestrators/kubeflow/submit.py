"""Hands a compiled pipeline to Kubeflow Pipelines: as one run, or to be run on a schedule."""

import contextlib
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.orchestrators.kubeflow.errors import SubmitError

_PARAMETER_TYPES: Mapping[str, type] = {"STRING": str, "NUMBER_INTEGER": int}
# Checks by the parameter names of target.py, whose import is slow: a step would refuse too late.
_MUST: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "epochs": ("be at least 1", lambda epochs: epochs >= 1),
    "span": ("be newest, a number, or a day as 2026-11-20", lambda span: _is_span(span)),
    "data_directory": (
        "be gs://…, or an absolute path of the image",
        lambda place: re.match(r"gs://[^/]|/", place) is not None,
    ),
}
# https://pkg.go.dev/github.com/robfig/cron#hdr-CRON_Expression_Format: the first field is seconds.
_CRON_FIELDS = 6


@dataclass(frozen=True)
class Server:
    """Kubeflow Pipelines' API.

    Attributes:
        host: Its URL.
        namespace: Of the user, where the installation has several.
        token: Bearer token; None: kfp finds out from its settings and the cluster.
        ca_file: PEM of the authority of its certificate.
    """

    host: str
    namespace: str | None = None
    token: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True)
class Submitted:
    """What was created.

    Attributes:
        kind: A single run, or one that recurs.
        name: As shown.
        identity: Under which the server knows it.
        replaced: Identities of the recurring runs that it took the place of.
    """

    kind: Literal["run", "recurring run"]
    name: str
    identity: str
    replaced: Sequence[str] = ()


def submit(
    package: Path,
    server: Server,
    *,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    cron: str | None = None,
    replace: bool = False,
    service_account: str | None = None,
) -> Submitted:
    """Creates a run, or a recurring run: one at a time, missed times are not caught up.

    Args:
        package: As `two-tower compile --runner kubeflow` wrote it.
        server: Where to.
        experiment: Made if it is not there.
        name: Of the run.
        parameters: As `read_parameters` returns them.
        cron: When it recurs, in UTC, with or without a field of seconds before the five.
        replace: Whether recurring runs of the same name in the experiment are removed, once the
            new one is there.
        service_account: Of Kubernetes, for the steps.

    Raises:
        SubmitError: The extra `kubeflow` is not installed, the server cannot be reached or
            refuses, or there is a recurring run of that name and `replace` is false.
    """
    with _explained(server.host):
        client = _client(server)
        found = client.create_experiment(experiment, namespace=server.namespace)
        given: dict[str, Any] = {
            "experiment_id": found.experiment_id,
            "job_name": name,
            "pipeline_package_path": str(package),
            "params": dict(parameters),
            "service_account": service_account,
        }
        if cron is None:
            return Submitted("run", name, client.run_pipeline(**given).run_id)
        schedule = cron_with_seconds(cron)
        before = _recurring_runs(client, found.experiment_id, name)
        if before and not replace:
            raise SubmitError(
                f"the experiment {experiment!r} has a recurring run {name!r} already "
                f"({', '.join(before)}); give --replace, or another --name"
            )
        made = client.create_recurring_run(
            **given, cron_expression=schedule, max_concurrency=1, no_catchup=True
        )
        for identity in before:
            client.delete_recurring_run(identity)
        return Submitted("recurring run", name, made.recurring_run_id, before)


def read_parameters(package: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Returns the values of `NAME=VALUE`s as the pipeline declares them.

    Raises:
        SubmitError: The file is no compiled pipeline, or a parameter is unknown, of a wrong type or
            impossible.
    """
    try:
        spec = yaml.safe_load(package.read_text(encoding="utf-8"))
        declared = spec["root"]["inputDefinitions"]["parameters"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SubmitError(f"{package} cannot be read: {error}") from error
    except (KeyError, TypeError) as error:
        raise SubmitError(
            f"{package} is no compiled pipeline; `two-tower compile --runner kubeflow` makes one"
        ) from error
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in declared:
            raise SubmitError(
                f"--parameter takes NAME=VALUE with one of {', '.join(sorted(declared))}; "
                f"got {text!r}"
            )
        values[name] = _read_value(text, name, value, declared[name])
    return values


def _read_value(text: str, name: str, value: str, declared: Any) -> Any:
    declared_type = str(declared.get("parameterType")) if isinstance(declared, dict) else "None"
    kind = _PARAMETER_TYPES.get(declared_type)
    if kind is None:
        raise SubmitError(
            f"--parameter {text}: {name} is of type {declared_type}, which pipelines of `two-tower "
            "compile` do not have"
        )
    try:
        read = kind(value)
    except ValueError as error:
        raise SubmitError(
            f"--parameter {text}: {name} must be a whole number, got {value!r}"
        ) from error
    must, holds = _MUST.get(name, ("", lambda _: True))
    if not holds(read):
        raise SubmitError(f"--parameter {text}: {name} must {must}, got {value!r}")
    return read


def _is_span(text: str) -> bool:
    if text == "newest" or re.fullmatch(r"[0-9]+", text):
        return True
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def cron_with_seconds(cron: str) -> str:
    """Returns a cron expression with a first field for seconds, as Kubeflow wants it.

    Raises:
        SubmitError: It has neither five nor six fields.
    """
    fields = cron.split()
    if len(fields) == _CRON_FIELDS - 1:
        return " ".join(["0", *fields])
    if len(fields) == _CRON_FIELDS:
        return " ".join(fields)
    raise SubmitError(
        "--cron takes five fields (minute hour day month weekday), or six with seconds before "
        f"them; got {cron!r}"
    )


def _client(server: Server) -> Any:
    try:
        import kfp
    except ImportError as error:
        raise SubmitError(
            "this needs the package kfp, which asks for other versions than the rest: make an "
            "environment from deploy/kubeflow/requirements.lock, see docs/kubeflow.md"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kfp.Client(
            host=server.host,
            namespace=server.namespace or "kubeflow",
            existing_token=server.token,
            ssl_ca_cert=server.ca_file,
        )


def _recurring_runs(client: Any, experiment_id: str, name: str) -> list[str]:
    same_name = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    listed = client.list_recurring_runs(
        experiment_id=experiment_id, page_size=100, filter=json.dumps({"predicates": [same_name]})
    )
    return [run.recurring_run_id for run in listed.recurring_runs or ()]


@contextlib.contextmanager
def _explained(host: str) -> Iterator[None]:
    """Turns what kfp raises into words, and keeps what it prints off standard output."""
    # It retries for itself, with a line each time.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (SubmitError, ImportError):
        raise
    except Exception as error:
        # Its exceptions lie in packages that are not there without it.
        status = getattr(error, "status", None)
        if status is not None:
            said = str(getattr(error, "body", "") or getattr(error, "reason", "")).strip()
            raise SubmitError(f"{host} refused with status {status}: {said[:1000]}") from error
        if isinstance(error, ValueError):
            raise SubmitError(f"kfp: {error}") from error
        if type(error).__module__.split(".")[0] in {"urllib3", "requests", "kfp_server_api"}:
            raise SubmitError(
                f"{host} cannot be reached; try again when it can: {error}"
            ) from error
        raise
