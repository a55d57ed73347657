"""The web server of the explorer. It answers GET requests and changes nothing."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web

from pipeline.explore.page import Explorer
from pipeline.explore.state import State
from serving.server.flags import bound_socket

_HERE = Path(__file__).parent
_REPORT_CSS = _HERE.parent / "report" / "report.css"
_HEADERS = {
    # Only the page's own files, so that hostile text in the data can neither run nor load anything.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_PARENT_POLL_S = 0.5

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ExplorerServer:
    """The server. It binds its port when it is created, before the slow start of a model.

    Args:
        address: Address to listen on.
        port: Port, or 0 for a free one.
    """

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._socket = bound_socket("explorer", address, port)
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/"

    async def serve(
        self, explorer: Explorer, ready: Callable[[], None], parent_pid: int | None = None
    ) -> None:
        """Answer requests until SIGINT, SIGTERM, or the exit of the process `parent_pid`."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner = web.AppRunner(self._app(explorer), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        ready()
        while not stop.is_set() and (parent_pid is None or os.getppid() == parent_pid):
            try:
                await asyncio.wait_for(stop.wait(), _PARENT_POLL_S)
            except asyncio.TimeoutError:
                continue
        await runner.cleanup()

    def _app(self, explorer: Explorer) -> web.Application:
        # A page of another site could get the name of its own host to point to this address, and
        # then read the answers. Its requests have another host.
        is_local = ip_address(self._socket.getsockname()[0]).is_loopback
        hosts = {*_LOCAL, self._address}

        @web.middleware
        async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
            if is_local and request.url.host not in hosts:
                raise web.HTTPForbidden(text="The explorer only answers requests to this machine.")
            return await handler(request)

        async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(_HEADERS)

        async def page(request: web.Request) -> web.Response:
            state = State.read(request.query.items())
            if sorted(state.pairs()) != sorted(request.query.items()):
                raise web.HTTPFound(state.url())  # what a form left empty is not in the URL
            text = await asyncio.to_thread(explorer.page, state)
            return web.Response(text=text, content_type="text/html")

        async def random_query(request: web.Request) -> web.Response:
            state = State.read(request.query.items())
            raise web.HTTPFound(state.url(query_id=explorer.random_query(), removed=()))

        def file(text: str, kind: str) -> _Handler:
            async def send(_: web.Request) -> web.Response:
                return web.Response(text=text, content_type=kind)

            return send

        css = [path.read_text("utf-8") for path in (_REPORT_CSS, _HERE / "explore.css")]
        script = (_HERE / "explore.js").read_text("utf-8")
        app = web.Application(middlewares=[check])
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/", page)
        app.router.add_get("/random", random_query)
        app.router.add_get("/explore.css", file("".join(css), "text/css"))
        app.router.add_get("/explore.js", file(script, "text/javascript"))
        return app
