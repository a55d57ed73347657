"""The base class of the clients whose methods wait for the response."""

from __future__ import annotations

import abc
import time
from typing import TYPE_CHECKING, Any

from serving.clients.answer import Embedding, Recommendations
from serving.clients.model import ModelMetadata, VersionStatus
from serving.clients.retrieval_client import RetrievalMethods
from serving.clients.retry import Flow
from serving.errors import ServingError

if TYPE_CHECKING:
    from typing_extensions import Self


class BlockingClient(
    RetrievalMethods[
        Recommendations,
        list[Recommendations],
        Embedding,
        list[Embedding],
        ModelMetadata,
        list[VersionStatus],
    ]
):
    """Base class of clients whose methods wait for the response. Threads may share a client."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abc.abstractmethod
    def _send(self, request: Any, timeout_s: float) -> Any:
        """Send a request and return the response."""

    def _run(self, flow: Flow[Any]) -> Any:
        response: Any = None
        try:
            while True:
                step = flow.send(response)
                if step.pause_s:
                    time.sleep(step.pause_s)
                try:
                    response = self._send(step.request, step.timeout_s)
                except ServingError as error:
                    response = error
        except StopIteration as stop:
            return stop.value
