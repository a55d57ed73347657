"""The main function of the server: load the models, open the ports, serve until stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import grpc
from tensorflow.core.protobuf import config_pb2

from serving.errors import ServingError, StartupError
from serving.server import event_log, loaded_model
from serving.server.batching import Batcher
from serving.server.config_files import (
    read_batching_options,
    read_credentials,
    read_metrics_path,
    read_model_config,
)
from serving.server.flags import ServerFlags
from serving.server.grpc_server import GrpcServer
from serving.server.loaded_model import LoadedModel
from serving.server.metrics import Metrics
from serving.server.model_manager import ModelManager, single_model_config
from serving.server.model_service import ModelService
from serving.server.request_log import RequestLog
from serving.server.rest_server import RestServer
from serving.server.version_folders import VersionFolder

_PARENT_POLL_S = 0.5


async def serve(flags: ServerFlags) -> None:
    """Run the server until SIGTERM, SIGINT, or the exit of the parent process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    watching = [loop.create_task(_stop_with_parent(flags.parent_pid, stop))]
    metrics = Metrics()
    manager = ModelManager(
        _loader(flags, metrics),
        flags.file_system_poll_wait_seconds,
        flags.allow_version_labels_for_unavailable_models,
    )
    # Read all configuration files before a model is loaded, so that errors are reported early.
    credentials = read_credentials(flags.ssl_config_file)
    metrics_path = read_metrics_path(flags.monitoring_config_file)
    batcher = Batcher(read_batching_options(flags), metrics.observe_run)
    request_log = _request_log(flags, metrics)
    manager.start()
    try:
        if flags.model_config_file is not None:
            config = read_model_config(flags.model_config_file)
        else:
            config = single_model_config(flags.model_name, flags.model_base_path or "")
        models = manager.configure(config)
        # Open the ports only after the models are available, as in TensorFlow Serving. So a client
        # that can connect gets answers.
        if await _available_before_stop(manager, models, stop):
            watching.append(loop.create_task(_poll_config(flags, manager)))
            service = ModelService(manager, batcher, metrics, request_log)
            await _answer_until_stopped(flags, service, credentials, metrics_path, stop)
    except ServingError as error:
        code = error.code_name.replace("_", " ").capitalize()
        raise StartupError(f"Failed to start server. Error: {code}: {error.message}") from error
    finally:
        for task in watching:
            task.cancel()
        batcher.stop()
        if request_log is not None:
            await loop.run_in_executor(None, request_log.stop)
        await loop.run_in_executor(None, manager.stop, flags.shutdown_grace_seconds)
        event_log.info("stopped")


async def _poll_config(flags: ServerFlags, manager: ModelManager) -> None:
    """Apply the model config file whenever it changes; log an error if it is invalid."""
    path, wait_s = flags.model_config_file, flags.model_config_file_poll_wait_seconds
    if path is None or wait_s == 0:
        return
    last_problem = ""
    while True:
        await asyncio.sleep(wait_s)
        try:
            config: Any = await asyncio.to_thread(read_model_config, path)
            if config != manager.config:
                manager.configure(config)
                event_log.info("config_file_read", path=path)
            last_problem = ""
        except (StartupError, ServingError) as error:
            if str(error) != last_problem:  # Log once, not on every poll.
                last_problem = str(error)
                event_log.error("config_file_refused", path=path, error=error)


def _request_log(flags: ServerFlags, metrics: Metrics) -> RequestLog | None:
    if flags.request_log_folder is None:
        return None
    return RequestLog(
        flags.request_log_folder,
        flags.request_log_sample,
        flags.request_log_max_bytes,
        flags.request_log_max_files,
        metrics,
    )


def _loader(flags: ServerFlags, metrics: Metrics) -> Callable[[VersionFolder], LoadedModel]:
    session_config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
    )

    def load(folder: VersionFolder) -> LoadedModel:
        model = loaded_model.load(folder.path, folder.version, session_config)
        started_s = time.monotonic()
        status = "OK"
        try:
            replayed = loaded_model.replay_warmup(model, folder.path)
        except BaseException as error:
            status = getattr(error, "code_name", "INTERNAL")
            model.close()
            raise
        finally:
            elapsed_us = (time.monotonic() - started_s) * 1e6
            metrics.warmup_latency.add(elapsed_us, str(folder.path), status)
        if replayed:
            event_log.info("warmup_replayed", version=folder.version, requests=replayed)
        return model

    return load


async def _stop_with_parent(parent_pid: int | None, stop: asyncio.Event) -> None:
    """Set `stop` when the parent process has exited, for example because it was killed."""
    if parent_pid is None:
        return
    while os.getppid() == parent_pid:
        await asyncio.sleep(_PARENT_POLL_S)
    event_log.info("parent_ended", parent_pid=parent_pid)
    stop.set()


async def _available_before_stop(
    manager: ModelManager, models: Collection[str], stop: asyncio.Event
) -> bool:
    """Wait until `models` are available; return False if `stop` is set before."""
    loading = asyncio.ensure_future(manager.wait_until_settled(models, waits_for_files=True))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (loading, stopping):
        task.cancel()
    if not stop.is_set():
        loading.result()
    return not stop.is_set()


async def _answer_until_stopped(
    flags: ServerFlags,
    service: ModelService,
    credentials: grpc.ServerCredentials | None,
    metrics_path: str | None,
    stop: asyncio.Event,
) -> None:
    rest = RestServer(service, flags, metrics_path) if flags.rest_api_port else None
    grpc_ = GrpcServer(service, flags, credentials) if flags.port else None
    servers = [server for server in (rest, grpc_) if server]
    for server in servers:  # Only after both ports are bound.
        await server.start()
    ports = {
        "grpc_port": grpc_.port if grpc_ else None,
        "rest_port": rest.port if rest else None,
    }
    event_log.info("serving", address=flags.bind_address, **ports)
    if flags.ready_file:
        _write_ready_file(flags.ready_file, ports)
    await stop.wait()
    event_log.info("draining", grace_s=flags.shutdown_grace_seconds)
    await asyncio.gather(*(server.stop() for server in servers))


def _write_ready_file(path: str, ports: dict[str, int | None]) -> None:
    """Write the ports (null for a disabled API) and the process ID to a JSON file, atomically."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(json.dumps({**ports, "pid": os.getpid()}) + "\n", encoding="utf-8")
    temporary.replace(target)
