"""Minimal gRPC server that returns the same bytes to every call, as a lower bound for latency.

Usage: python benchmarks/_canned_server.py sync|aio PATH ANSWER_FILE

It prints its port and exits when its standard input is closed.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc


def _handlers(path: str, method: Any) -> Any:
    service, _, name = path.strip("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(method)  # takes and returns bytes
    return grpc.method_handlers_generic_handler(service, {name: handler})


def serve_sync(path: str, answer: bytes) -> None:
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers([_handlers(path, lambda request, context: answer)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0)


async def serve_aio(path: str, answer: bytes) -> None:
    async def reply(request: bytes, context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_handlers(path, reply)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    _kind, _path, _file = sys.argv[1:]
    _answer = Path(_file).read_bytes()
    if _kind == "sync":
        serve_sync(_path, _answer)
    else:
        asyncio.run(serve_aio(_path, _answer))
