"""TensorFlow Serving's rules for versions and labels, as its r2.16 sources have them.

`ServerCore::ReloadConfig`: labels are checked and take effect before versions load or unload; a
label may go only to an available version, unless the server allows it and the label is not in use.
Versions that a model lacks on disk are not listed. A reload does not wait for versions of a known
model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.clients import messages, messages_pb2
from tests.serving.clients.fake_server import fake_server

START, LOADING, AVAILABLE, END = 10, 20, 30, 50


class FakeTensorFlowServing:
    """Serves the model `retrieval`, at first in its newest version.

    Args:
        on_disk: Versions under the base path.
        broken: Versions among them that fail to load.
        load_s: How long a version takes to load.
        allow_unavailable: `--allow_version_labels_for_unavailable_models`.
    """

    def __init__(
        self,
        on_disk: set[int],
        broken: frozenset[int] = frozenset(),
        load_s: float = 0.3,
        allow_unavailable: bool = True,
    ) -> None:
        self.on_disk, self.broken, self.load_s = on_disk, broken, load_s
        self.allow_unavailable = allow_unavailable
        self.labels: dict[str, int] = {}
        self.configs: list[ModelServerConfig] = []
        self.most_loaded = 0
        self._aspired = {max(on_disk): time.monotonic() - 60}
        self._ended: set[int] = set()

    def states(self) -> dict[int, int]:
        now = time.monotonic()
        states = dict.fromkeys(self._ended, END)
        for version, since in self._aspired.items():
            if now - since < self.load_s:
                states[version] = LOADING
            else:
                states[version] = END if version in self.broken else AVAILABLE
        return states

    @property
    def available(self) -> set[int]:
        return {version for version, state in self.states().items() if state == AVAILABLE}

    def reload(self, request: Any, context: grpc.ServicerContext) -> Any:
        config = ModelServerConfig.FromString(request.config)
        self.configs.append(config)
        (model,) = [m for m in config.model_config_list.config if m.name == "retrieval"]
        labels = dict(model.version_labels)
        for label, version in labels.items():
            is_new = self.labels.get(label, version) == version
            if version not in self.available and not (self.allow_unavailable and is_new):
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model retrieval, which is "
                    "not currently available for inference",
                )
        self.labels = labels
        policy = model.model_version_policy
        wanted = set(policy.specific.versions) or {max(self.on_disk)}
        was = self._aspired
        now = time.monotonic()
        self._aspired = {v: was.get(v, now) for v in wanted & self.on_disk}
        self._ended = (self._ended | set(was)) - set(self._aspired)
        self.most_loaded = max(self.most_loaded, len(self._aspired))
        return messages_pb2.ReloadConfigResponse()

    def status(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = messages_pb2.GetModelStatusResponse()
        for version, state in self.states().items():
            row = response.model_version_status.add(version=version, state=state)
            row.status.error_code = 0
            if state == END and version in self.broken and version in self._aspired:
                row.status.error_code, row.status.error_message = 15, "no SavedModel"
        return response

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yield the address."""
        answers = {messages.RELOAD_CONFIG: self.reload, messages.GET_MODEL_STATUS: self.status}
        with fake_server(answers) as port:
            yield f"127.0.0.1:{port}"
