"""The health service (`grpc.health.v1`), whose watchers let the server drain."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

_SERVICES = ("", "ModelService", "PredictionService")
_STATUS = health_pb2.HealthCheckResponse


class Health(health.aio.HealthServicer):  # type: ignore[misc]
    """All services are SERVING until the server drains.

    The library's own Watch never ends: one client that watches would hold up every drain for the
    whole grace. This one tells NOT_SERVING and ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_draining = asyncio.Event()

    async def enter_serving(self) -> None:
        """Set every service to SERVING."""
        for name in _SERVICES:  # "" is the server as a whole.
            await self.set(name, _STATUS.SERVING)

    async def enter_graceful_shutdown(self) -> None:
        """Set every service to NOT_SERVING for good, and end the watching."""
        await super().enter_graceful_shutdown()
        self._is_draining.set()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Tell the status, and tell it again when it changes."""
        for wait in (False, True):
            if wait:
                await self._is_draining.wait()
            status = self._server_status.get(request.service, _STATUS.SERVICE_UNKNOWN)
            await context.write(_STATUS(status=status))
