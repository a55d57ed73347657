"""Run a compiled pipeline step by step, each in its own process, without a cluster.

This does what Kubeflow's driver and launcher do, as far as a step can see: order the tasks, resolve
parameters and artifacts, choose the URI of each output, replace `{{$}}` with the result, start the
container's command, and read the outputs that the step reports (backend/src/v2/driver and component
in kubeflow/pipelines). Inputs are read back from Kubeflow's metadata with numbers for names,
without types, and with all numbers as doubles (`toRuntimeArtifact` and
`OutputArtifact.ToRuntimeArtifact` in backend/src/v2/metadata).
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from tests.pipeline.two_clubs import ROOT

# The driver adds it to a component's outputs if it keeps logs (`provisionOutputs`).
_LOGS = ("executor-logs", {"artifactType": {"schemaTitle": "system.Artifact"}})


class StepFailedError(Exception):
    """A step failed."""


class CompiledPipeline:
    """A pipeline spec that is executed.

    Attributes:
        outputs: Artifacts by task and key, as later inputs see them.
        seconds: Wall time by task.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        run_dir: Path,
        parameters: Mapping[str, Any] | None = None,
        container: Sequence[str] = (),
    ) -> None:
        """Prepare to run the steps, in this environment or by a command that enters a container."""
        self._spec = spec
        self._run_dir = run_dir
        self._container = container
        declared = spec["root"]["inputDefinitions"]["parameters"]
        unknown = set(parameters or {}) - set(declared)
        assert not unknown, f"the pipeline declares no {unknown}"
        self._parameters = {name: body.get("defaultValue") for name, body in declared.items()}
        self._parameters.update(parameters or {})
        self._artifact_ids = itertools.count(17)
        self.outputs: dict[str, dict[str, dict[str, Any]]] = {}
        self.seconds: dict[str, float] = {}

    def order(self) -> Iterator[str]:
        """Yield the tasks, each after those it depends on."""
        tasks = self._spec["root"]["dag"]["tasks"]
        graph = {}
        for name, task in tasks.items():
            given = task.get("inputs", {}).get("artifacts", {}).values()
            producers = {one["taskOutputArtifact"]["producerTask"] for one in given}
            graph[name] = producers | set(task.get("dependentTasks", ()))
        assert {dependency for group in graph.values() for dependency in group} <= set(tasks)
        return TopologicalSorter(graph).static_order()

    def run(self, only: Collection[str] | None = None) -> None:
        """Run every task in order, or only some."""
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
        variables = {one["name"]: one["value"] for one in container.get("env", ())}
        if self._container:
            given = [f"{key}={value}" for key, value in variables.items()]
            command = [*self._container, "env", *given, *command]
        else:
            command[0] = sys.executable
            variables["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
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
    """Return a metadata value in the form that Kubeflow stores (`StructValueToMLMDValue`)."""
    assert value is not None, "the launcher takes no null"
    if isinstance(value, bool | int):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    return {"struct": value} if isinstance(value, dict) else value


def compile_for_folder(config: Path, root: Path, *overrides: str) -> dict[str, Any]:
    """Compile for a local root, which the command refuses because no backend supports it."""
    from pipeline.config.file import load
    from pipeline.orchestrators.kubeflow.compile import compile_pipeline

    loaded = load(str(config), overrides)
    text = compile_pipeline(loaded, "kubeflow", "two-tower-pipeline:test", str(root))
    spec: dict[str, Any] = yaml.safe_load(text)
    return spec


def _declared_outputs(component: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(component.get("outputDefinitions", {}).get("artifacts", {}).items())
