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


async def serve(kind: str, path: str, answer: bytes) -> None:
    async def reply(request: bytes, context: Any) -> bytes:
        return answer

    is_aio = kind == "aio"
    server: Any = grpc.aio.server() if is_aio else grpc.server(ThreadPoolExecutor(16))
    # The method takes and returns bytes.
    method = grpc.unary_unary_rpc_method_handler(
        reply if is_aio else lambda request, context: answer
    )
    service, _, name = path.strip("/").partition("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    starting = server.start()
    if is_aio:
        await starting
    await asyncio.to_thread(sys.stdin.read)
    stopping = server.stop(0)
    if is_aio:
        await stopping


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
