"""The server's life: load, open the ports, answer, drain, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection
from typing import Any

from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import ServingError
from serving.server import event_log, loaded_model, ready_file, warmup
from serving.server.batching import Batcher
from serving.server.batching_options import batching_options
from serving.server.config_files import MonitoringConfig, read_text_proto
from serving.server.failed_loads import LoadRetries
from serving.server.flags import ServerFlags
from serving.server.grpc_server import GrpcOptions, GrpcServer
from serving.server.loaded_model import LoadedModel
from serving.server.metrics import DEFAULT_PATH, Metrics
from serving.server.model_config import single_model
from serving.server.model_manager import ModelManager
from serving.server.model_service import ModelService
from serving.server.rest_server import RestServer
from serving.server.startup import StartupError
from serving.server.tls import read_credentials
from serving.server.version_folders import VersionFolder
from serving.server.version_labels import UnavailableVersions

_PARENT_POLL_S = 0.5


async def serve(flags: ServerFlags) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        StartupError: If the model cannot be loaded or a port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    watching = [loop.create_task(_stop_with_parent(flags.parent_pid, stop))]
    metrics = Metrics()
    manager = ModelManager(
        _loader(flags, metrics),
        flags.file_system_poll_wait_seconds,
        _labels_of_unavailable(flags),
        LoadRetries(flags.max_num_load_retries, flags.load_retry_interval_micros / 1e6),
    )
    config = _initial_config(flags)
    # Files with a mistake are told before a model is loaded.
    grpc_options, metrics_path = _grpc_options(flags), _metrics_path(flags)
    batcher = Batcher(batching_options(flags), metrics.observe_run)
    try:
        models = manager.configure(config)
    except ServingError as error:
        raise StartupError(_start_error(error)) from error
    manager.start()
    try:
        # The ports open once the models are there, as in TensorFlow Serving: who can connect can
        # ask.
        if await _available_before_stop(manager, models, stop):
            watching.append(loop.create_task(_poll_config(flags, manager)))
            service = ModelService(manager, batcher, metrics)
            await _answer_until_stopped(flags, service, grpc_options, metrics_path, stop)
    finally:
        for task in watching:
            task.cancel()
        batcher.stop()
        await loop.run_in_executor(None, manager.stop, flags.shutdown_grace_seconds)
        event_log.info("stopped")


def _initial_config(flags: ServerFlags) -> Any:
    if flags.model_config_file is not None:
        return _read_config(flags.model_config_file)
    assert flags.model_base_path is not None
    return single_model(flags.model_name, flags.model_base_path)


def _read_config(path: str) -> Any:
    config = model_server_config_pb2.ModelServerConfig()
    return read_text_proto(path, config, "--model_config_file")


async def _poll_config(flags: ServerFlags, manager: ModelManager) -> None:
    """Take over the model config file whenever it has changed; a wrong one changes nothing."""
    path, wait_s = flags.model_config_file, flags.model_config_file_poll_wait_seconds
    if path is None or wait_s == 0:
        return
    last_problem = ""
    while True:
        await asyncio.sleep(wait_s)
        try:
            config: Any = await asyncio.to_thread(_read_config, path)
            if config != manager.config:
                manager.configure(config)
                event_log.info("config_file_read", path=path)
            last_problem = ""
        except (StartupError, ServingError) as error:
            if str(error) != last_problem:  # Once, not at each look.
                last_problem = str(error)
                event_log.error("config_file_refused", path=path, error=error)


def _labels_of_unavailable(flags: ServerFlags) -> UnavailableVersions:
    if flags.force_allow_any_version_labels_for_unavailable_models:
        return UnavailableVersions.ALLOWED
    if flags.allow_version_labels_for_unavailable_models:
        return UnavailableVersions.NEW_LABELS
    return UnavailableVersions.REFUSED


def _loader(flags: ServerFlags, metrics: Metrics) -> Callable[[VersionFolder], LoadedModel]:
    session_config = config_pb2.ConfigProto(
        intra_op_parallelism_threads=flags.tensorflow_intra_op_parallelism,
        inter_op_parallelism_threads=flags.tensorflow_inter_op_parallelism,
    )

    def load(folder: VersionFolder) -> LoadedModel:
        model = loaded_model.load(folder.path, folder.version, session_config)
        if flags.enable_model_warmup:
            try:
                _warm_up(model, folder, metrics)
            except BaseException:
                model.close()
                raise
        return model

    return load


def _warm_up(model: LoadedModel, folder: VersionFolder, metrics: Metrics) -> None:
    started_s = time.monotonic()
    status = "INTERNAL"
    try:
        replayed = warmup.replay(model, folder.path)
        status = "OK"
    except ServingError as error:
        status = error.code_name()
        raise
    finally:
        elapsed_us = (time.monotonic() - started_s) * 1e6
        metrics.warmup_latency.add(elapsed_us, str(folder.path), status)
    if replayed:
        event_log.info("warmup_replayed", version=folder.version, requests=replayed)


async def _stop_with_parent(parent_pid: int | None, stop: asyncio.Event) -> None:
    """Stop the server of a launcher that was killed and so could not stop it itself."""
    if parent_pid is None:
        return
    while os.getppid() == parent_pid:
        await asyncio.sleep(_PARENT_POLL_S)
    event_log.info("parent_ended", parent_pid=parent_pid)
    stop.set()


async def _available_before_stop(
    manager: ModelManager, models: Collection[str], stop: asyncio.Event
) -> bool:
    """Wait for the first loads; False if the server is told to stop meanwhile."""
    loading = asyncio.create_task(manager.wait_until_available(models))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        loading.cancel()
        return False
    try:
        await loading
    except ServingError as error:
        raise StartupError(_start_error(error)) from error
    return True


def _start_error(error: ServingError) -> str:
    code = error.code_name().replace("_", " ").capitalize()
    return f"Failed to start server. Error: {code}: {error.message}"


async def _answer_until_stopped(
    flags: ServerFlags,
    service: ModelService,
    grpc_options: GrpcOptions,
    metrics_path: str | None,
    stop: asyncio.Event,
) -> None:
    grpc_front: GrpcServer | None = None
    rest_front: RestServer | None = None
    try:
        if flags.rest_api_port:
            rest_front = RestServer(
                service,
                flags.bind_address,
                flags.rest_api_port,
                timeout_s=flags.rest_api_timeout_in_ms / 1000,
                max_request_bytes=flags.max_request_bytes,
                metrics_path=metrics_path,
            )
        if flags.port:
            grpc_front = GrpcServer(service, grpc_options)
    except OSError as error:
        raise StartupError(str(error)) from error
    # Both have their ports; only now does either answer.
    if rest_front:
        rest_front.start()
    if grpc_front:
        await grpc_front.start()
    rest_port = rest_front.port if rest_front else None
    grpc_port = grpc_front.port if grpc_front else None
    event_log.info("serving", address=flags.bind_address, grpc_port=grpc_port, rest_port=rest_port)
    if flags.ready_file:
        ready_file.write(flags.ready_file, grpc_port, rest_port)
    await stop.wait()
    event_log.info("draining", grace_s=flags.shutdown_grace_seconds)
    # Both refuse new calls at once and return when the running ones are answered.
    await asyncio.gather(
        grpc_front.stop(flags.shutdown_grace_seconds) if grpc_front else _nothing(),
        asyncio.to_thread(rest_front.stop, flags.shutdown_grace_seconds)
        if rest_front
        else _nothing(),
    )


def _grpc_options(flags: ServerFlags) -> GrpcOptions:
    ssl_file = flags.ssl_config_file
    return GrpcOptions(
        bind_address=flags.bind_address,
        port=flags.port,
        credentials=None if ssl_file is None else read_credentials(ssl_file),
        max_request_bytes=flags.max_request_bytes,
        channel_arguments=flags.grpc_channel_arguments,
        answers_health_checks=flags.enable_grpc_healthcheck_service,
    )


def _metrics_path(flags: ServerFlags) -> str | None:
    if flags.monitoring_config_file is None:
        return None
    file = flags.monitoring_config_file
    config = read_text_proto(file, MonitoringConfig(), "--monitoring_config_file").prometheus_config
    return (config.path or DEFAULT_PATH) if config.enable else None


async def _nothing() -> None:
    pass
