"""The list of models to serve: its checks, with the texts of TensorFlow Serving.

References:
    `ValidateModelConfigList` and `GetPlatform` in tensorflow_serving/model_servers/server_core.cc.
"""

from __future__ import annotations

import os
import re
from typing import Any

from tensorflow_serving.config import model_server_config_pb2

from serving.errors import InvalidArgumentError

PLATFORM = "tensorflow"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.]*://")


def single_model(name: str, base_path: str) -> Any:
    """Return the configuration of the flags `--model_name` and `--model_base_path`."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=os.path.abspath(base_path), model_platform=PLATFORM
    )
    return config


def check_model_configs(configs: Any) -> None:
    """Check a list of `ModelConfig`.

    Raises:
        InvalidArgumentError: If a name comes twice, a path is relative, or the platform is another.
    """
    names: set[str] = set()
    for config in configs:
        if config.name in names:
            raise InvalidArgumentError(
                f"Illegal to list model {config.name} multiple times in config list"
            )
        names.add(config.name)
    for config in configs:
        if not os.path.isabs(config.base_path) and not _SCHEME.match(config.base_path):
            raise InvalidArgumentError(
                f"Expected model {config.name} to have an absolute path or URI; got "
                f"base_path()={config.base_path}"
            )
    for config in configs:
        platform = _platform(config)
        if platform != PLATFORM:
            raise InvalidArgumentError(
                f"Model {config.name} requests unsupported platform {platform}"
            )


def _platform(config: Any) -> str:
    model_type = config.model_type
    if model_type and config.model_platform:
        raise InvalidArgumentError(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {config.name}"
        )
    if model_type == model_server_config_pb2.TENSORFLOW:
        return PLATFORM
    if model_type:
        raise InvalidArgumentError(
            f"ModelServerConfig::model_type choice {model_type} not supported."
        )
    if not config.model_platform:
        raise InvalidArgumentError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {config.name}"
        )
    platform: str = config.model_platform
    return platform
