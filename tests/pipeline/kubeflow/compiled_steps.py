"""Runs a compiled pipeline step by step, each in a process of its own, without a cluster.

What the launcher of Kubeflow Pipelines does, as far as a step can see it: it waits for the tasks
that a task depends on, gives parameters and artifacts their values, makes up the place of each
output, puts all that in for `{{$}}`, starts the container's command, and reads what the step
says of its outputs (backend/src/v2/driver and component in kubeflow/pipelines).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from tests.pipeline.two_clubs import ROOT


class StepFailedError(Exception):
    """A step ended with an error."""


class CompiledPipeline:
    """A pipeline spec at work.

    Attributes:
        outputs: The artifacts by task and key, as far as tasks have run.
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
                                "name": f"{self._run_dir.name}/{name}/{key}",
                                "type": declared["artifactType"],
                                "uri": str(folder / key),
                                "metadata": declared.get("metadata", {}),
                            }
                        ]
                    }
                    for key, declared in _declared_outputs(component)
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
            key: self._merged(given["artifacts"][0], said.get("artifacts", {}).get(key))
            for key, given in executor_input["outputs"]["artifacts"].items()
        }

    def _value(self, given: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in given:
            return self._parameters[given["componentInputParameter"]]
        return given["runtimeValue"]["constant"]

    def _artifact(self, given: Mapping[str, Any]) -> dict[str, Any]:
        made = given["taskOutputArtifact"]
        return self.outputs[made["producerTask"]][made["outputArtifactKey"]]

    @staticmethod
    def _merged(planned: dict[str, Any], said: Mapping[str, Any] | None) -> dict[str, Any]:
        if said is None:
            return planned
        [artifact] = said["artifacts"]
        return {
            **planned,
            "uri": artifact.get("uri") or planned["uri"],
            "metadata": {**planned["metadata"], **artifact.get("metadata", {})},
        }


def _declared_outputs(component: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(component.get("outputDefinitions", {}).get("artifacts", {}).items())
