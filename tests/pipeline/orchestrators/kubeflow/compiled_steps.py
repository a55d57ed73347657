"""Runs a compiled pipeline step by step, each in a process of its own, without a cluster.

What driver and launcher of Kubeflow Pipelines do, as far as a step can see it: they wait for the
tasks that a task depends on, give parameters and artifacts their values, make up the place of each
output, put all that in for `{{$}}`, start the container's command, and read what the step says of
its outputs (backend/src/v2/driver and component in kubeflow/pipelines). An input comes back from
their metadata as the store keeps it: by number, without its type, all numbers as doubles
(`toRuntimeArtifact` and `OutputArtifact.ToRuntimeArtifact` in backend/src/v2/metadata).
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from tests.pipeline.two_clubs import ROOT

# Added by the driver to what a component declares (`provisionOutputs`), unless logs are not kept.
_LOGS = ("executor-logs", {"artifactType": {"schemaTitle": "system.Artifact"}})


class StepFailedError(Exception):
    """A step ended with an error."""


class CompiledPipeline:
    """A pipeline spec at work.

    Attributes:
        outputs: The artifacts by task and key, as inputs see them, as far as tasks have run.
        seconds: Wall time by task.
    """

    def __init__(
        self, spec: Mapping[str, Any], run_dir: Path, parameters: Mapping[str, Any] | None = None
    ) -> None:
        self._spec = spec
        self._run_dir = run_dir
        declared = spec["root"]["inputDefinitions"]["parameters"]
        unknown = set(parameters or {}) - set(declared)
        assert not unknown, f"the pipeline declares no {unknown}"
        self._parameters = {name: body.get("defaultValue") for name, body in declared.items()}
        self._parameters.update(parameters or {})
        self._artifact_ids = itertools.count(17)
        self.outputs: dict[str, dict[str, dict[str, Any]]] = {}
        self.seconds: dict[str, float] = {}

    def order(self) -> Iterator[str]:
        """The tasks, each after those it depends on."""
        tasks = self._spec["root"]["dag"]["tasks"]
        graph = {}
        for name, task in tasks.items():
            given = task.get("inputs", {}).get("artifacts", {}).values()
            producers = {one["taskOutputArtifact"]["producerTask"] for one in given}
            graph[name] = producers | set(task.get("dependentTasks", ()))
        assert {dependency for group in graph.values() for dependency in group} <= set(tasks)
        return TopologicalSorter(graph).static_order()

    def run(self, only: Collection[str] | None = None) -> None:
        """Runs every task in order, or only some."""
        for name in self.order():
            if only is not None and name not in only:
                continue
            started = time.monotonic()
            self._run_task(name)
            self.seconds[name] = time.monotonic() - started

    def _run_task(self, name: str) -> None:
        task = self._spec["root"]["dag"]["tasks"][name]
        component = self._spec["components"][task["componentRef"]["name"]]
        executors = self._spec["deploymentSpec"]["executors"]
        container = executors[component["executorLabel"]]["container"]
        folder = self._run_dir / name
        executor_input = {
            "inputs": {
                "parameterValues": {
                    key: self._value(given)
                    for key, given in task.get("inputs", {}).get("parameters", {}).items()
                },
                "artifacts": {
                    key: {"artifacts": [self._artifact(given)]}
                    for key, given in task.get("inputs", {}).get("artifacts", {}).items()
                },
            },
            "outputs": {
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                "name": key,
                                "type": declared["artifactType"],
                                "uri": str(folder / key),
                                "metadata": declared.get("metadata", {}),
                            }
                        ]
                    }
                    for key, declared in [*_declared_outputs(component), _LOGS]
                },
                "outputFile": str(folder / "executor_output.json"),
            },
        }
        placeholder = json.dumps(executor_input)
        words = [*container["command"], *container["args"]]
        command = [placeholder if word == "{{$}}" else word for word in words]
        assert not [word for word in command if word.startswith("{{$.")], "unknown placeholder"
        assert command[0] == "python"
        done = subprocess.run(
            [sys.executable, *command[1:]],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **{one["name"]: one["value"] for one in container.get("env", ())},
            },
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            raise StepFailedError(f"{name}: {done.stderr[-4000:]}")
        said = json.loads((folder / "executor_output.json").read_text())
        self.outputs[name] = {
            key: self._stored(key, given["artifacts"][0], said.get("artifacts", {}).get(key))
            for key, given in executor_input["outputs"]["artifacts"].items()
        }

    def _value(self, given: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in given:
            return self._parameters[given["componentInputParameter"]]
        return given["runtimeValue"]["constant"]

    def _artifact(self, given: Mapping[str, Any]) -> dict[str, Any]:
        made = given["taskOutputArtifact"]
        return self.outputs[made["producerTask"]][made["outputArtifactKey"]]

    def _stored(
        self, key: str, planned: dict[str, Any], said: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        artifact = said["artifacts"][0] if said else {}
        metadata = {**planned["metadata"], **artifact.get("metadata", {})}
        stored = {name: _stored_value(value) for name, value in metadata.items()}
        return {
            "name": str(next(self._artifact_ids)),
            "type": {"instanceSchema": ""},
            "uri": artifact.get("uri") or planned["uri"],
            "metadata": {"display_name": key, "store_session_info": "null", **stored},
        }


def _stored_value(value: Any) -> Any:
    """A value of an artifact's metadata, there and back (`StructValueToMLMDValue`)."""
    assert value is not None, "the launcher takes no null"
    if isinstance(value, bool | int):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    return {"struct": value} if isinstance(value, dict) else value


def compile_for_folder(config: Path, root: Path, *overrides: str) -> dict[str, Any]:
    """Compiles for a root on this machine, which no backend takes and the command refuses."""
    from pipeline.config.file import load
    from pipeline.orchestrators.kubeflow.compile import compile_pipeline

    loaded = load(str(config), overrides)
    text = compile_pipeline(loaded, "kubeflow", "two-tower-pipeline:test", str(root))
    spec: dict[str, Any] = yaml.safe_load(text)
    return spec


def _declared_outputs(component: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(component.get("outputDefinitions", {}).get("artifacts", {}).items())
