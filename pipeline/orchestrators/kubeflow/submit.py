"""Submission of a compiled pipeline to Kubeflow Pipelines, as a run or a recurring run."""

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

from pipeline.config.yaml_text import read_yaml
from pipeline.errors import SubmitError, reason_of

_PARAMETER_TYPES: Mapping[str, Callable[[str], Any]] = {"STRING": str, "NUMBER_INTEGER": int}
# Requirement and check by parameter name. Steps check the values too, but only after the run has
# started. target.py defines the names, but is slow to import.
_CHECKS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "epochs": ("be a whole number of at least 1", lambda epochs: epochs >= 1),
    "span": (
        "be newest, a number, or a day such as 2026-11-20",
        lambda span: re.fullmatch("newest|[0-9]+", span) or date.fromisoformat(span),
    ),
    "data_directory": (
        "be gs://…, or an absolute path in the image",
        lambda folder: re.match(r"gs://[^/]|/", folder),
    ),
}
# https://pkg.go.dev/github.com/robfig/cron#hdr-CRON_Expression_Format: the first field is seconds.
_CRON_FIELDS = 6


@dataclass(frozen=True)
class Server:
    """A server of Kubeflow Pipelines, and the credentials for its API.

    Attributes:
        host: URL of the API.
        namespace: Namespace of the user, for installations with several users.
        token: Bearer token; if None, kfp uses its own settings and those of the cluster.
        ca_file: PEM file of the authority that signed the server's certificate.
    """

    host: str
    namespace: str | None = None
    token: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True)
class Submitted:
    """A run or recurring run that was created, and the IDs of the recurring runs it replaced."""

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
    """Create a run, or a recurring run if `cron` is given.

    The runs of a recurring run do not overlap, and missed runs are not made up for.
    `package` is a file from `two-tower compile --runner kubeflow`, and `parameters` come from
    `read_parameters`. `cron` is in UTC and has five fields, or six if the first is seconds. With
    `replace`, recurring runs with the same name are deleted after the new one was created.

    Raises:
        SubmitError: kfp is not installed, the server cannot be reached or refuses the request, or a
            recurring run with this name exists and `replace` is false.
    """
    with _explained(server.host):
        client = _client(server)
        found = client.create_experiment(experiment, namespace=server.namespace)
        request: dict[str, Any] = {
            "experiment_id": found.experiment_id,
            "job_name": name,
            "pipeline_package_path": str(package),
            "params": dict(parameters),
            "service_account": service_account,
        }
        if cron is None:
            return Submitted("run", name, client.run_pipeline(**request).run_id)
        schedule = cron_with_seconds(cron)
        before = _recurring_runs(client, found.experiment_id, name)
        if before and not replace:
            raise SubmitError(
                f"the experiment {experiment!r} already has a recurring run {name!r} "
                f"({', '.join(before)}); give --replace, or another --name"
            )
        created = client.create_recurring_run(
            **request, cron_expression=schedule, max_concurrency=1, no_catchup=True
        )
        for identity in before:
            client.delete_recurring_run(identity)
        return Submitted("recurring run", name, created.recurring_run_id, before)


def read_parameters(package: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Parse texts such as `epochs=3` into values of the types that the pipeline declares.

    Raises:
        SubmitError: The file is not a compiled pipeline, or a parameter is unknown or has an
            invalid value.
    """
    try:
        spec = read_yaml(package.read_text(encoding="utf-8"))
        declared = spec["root"]["inputDefinitions"]["parameters"]
    except (OSError, ValueError) as error:
        raise SubmitError(f"{package} cannot be read: {reason_of(error)}") from error
    except (KeyError, TypeError) as error:
        raise SubmitError(
            f"{package} is not a compiled pipeline; `two-tower compile --runner kubeflow` makes one"
        ) from error
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in declared:
            raise SubmitError(
                f"--parameter must be NAME=VALUE with one of {', '.join(sorted(declared))}; "
                f"got {text!r}"
            )
        values[name] = _read_value(text, name, value, declared[name])
    return values


def _read_value(text: str, name: str, value: str, declared: Mapping[str, Any]) -> Any:
    kind = _PARAMETER_TYPES.get(declared["parameterType"])
    if kind is None:
        raise SubmitError(
            f"--parameter {text}: {name} has the type {declared['parameterType']}, which no "
            "pipeline of `two-tower compile` has"
        )
    must, is_valid = _CHECKS.get(name, (f"be a {declared['parameterType']}", lambda _: True))
    try:
        read = kind(value)
        problem = None if is_valid(read) else ValueError(value)
    except ValueError as error:
        problem = error
    if problem is not None:
        raise SubmitError(f"--parameter {text}: {name} must {must}, got {value!r}") from problem
    return read


def cron_with_seconds(cron: str) -> str:
    """Return a cron expression of six fields, as Kubeflow requires; seconds are 0 by default."""
    fields = cron.split()
    if len(fields) == _CRON_FIELDS - 1:
        return " ".join(["0", *fields])
    if len(fields) == _CRON_FIELDS:
        return " ".join(fields)
    raise SubmitError(
        "--cron must have five fields (minute hour day month weekday), or six with seconds first; "
        f"got {cron!r}"
    )


def _client(server: Server) -> Any:
    try:
        import kfp
    except ImportError as error:
        raise SubmitError(
            "this command needs the package kfp, whose dependencies conflict with the pipeline's: "
            "create an environment from deploy/kubeflow/requirements.lock, see docs/kubeflow.md"
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
    """Convert exceptions of kfp to SubmitError, and redirect its output to standard error."""
    # urllib3 logs a warning for each retry.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (SubmitError, ImportError):
        raise
    except Exception as error:
        # The exception classes are in packages that are only installed with kfp, so they are
        # recognized by their attributes and modules. Other exceptions are raised again.
        status = getattr(error, "status", None)
        if status is not None:
            answer = str(getattr(error, "body", "") or getattr(error, "reason", "")).strip()
            raise SubmitError(f"{host} refused with status {status}: {answer[:1000]}") from error
        if isinstance(error, ValueError):
            raise SubmitError(f"kfp: {error}") from error
        if type(error).__module__.split(".")[0] in {"urllib3", "requests", "kfp_server_api"}:
            raise SubmitError(f"{host} cannot be reached; try again later: {error}") from error
        raise
