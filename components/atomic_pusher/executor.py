"""The stock Pusher, but a version appears in the serving directory whole or not at all.

TensorFlow Serving takes any folder with a number for a version within a second. The stock
executor copies into that folder file by file; this one copies aside and renames. On an object
store a rename moves object by object, in an order of its own: there it copies into the folder
itself, `saved_model.pb` last, and a folder without that file is no version.
"""

import os
import time
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from components.blessed_models.blessings import require_infra_blessing, require_model_blessing
from components.folder_digest import digest_of_folder

# TensorFlow Serving ignores folders whose name is not a number.
_INCOMING_PREFIX = "incoming-"
_REMOTE = "://"
_SAVED_MODEL_FILE = "saved_model.pb"
# Whether this execution pushed the version, or found the model served already.
NEWLY_PUSHED_PROPERTY = "newly_pushed"
# TensorFlow Serving leaves this folder alone.
_DIGEST_FILE = os.path.join("assets.extra", "digest")
# Where an export says what it is made of, that decides whether two are the same.
_IDENTITY_FILE = os.path.join("assets.extra", "identity")


class Executor(executor.Executor):
    """Runs Pusher."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model.

        Args:
            input_dict: `model`, `model_blessing`, `infra_blessing`.
            output_dict: `pushed_model`, with the destination and version as properties.
            exec_properties: `push_destination` with a filesystem's `base_directory`.

        Raises:
            NotBlessedError: A gate refused the model: the serving directory stays as it was.
        """
        for key, require in (
            (standard_component_specs.MODEL_BLESSING_KEY, require_model_blessing),
            (standard_component_specs.INFRA_BLESSING_KEY, require_infra_blessing),
        ):
            require(artifact_utils.get_single_instance(input_dict[key]))
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination
        )
        base = destination.filesystem.base_directory
        before = newest_version(base)
        version, path = push(self.GetModelPath(input_dict), base)
        pushed = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        )
        fileio.makedirs(pushed.uri)
        io_utils.write_string_file(os.path.join(pushed.uri, "destination.txt"), path + "\n")
        pushed.set_int_custom_property(NEWLY_PUSHED_PROPERTY, int(version != before))
        self._MarkPushed(pushed, pushed_destination=path, pushed_version=str(version))


def push(model_path: str, base: str) -> tuple[int, str]:
    """Copies a SavedModel to `base` as its newest version, unless it is that already.

    Args:
        model_path: Folder of the SavedModel.
        base: Base path of the versions.

    Returns:
        The version and its folder.
    """
    fileio.makedirs(base)
    digest = _digest(model_path)
    newest = newest_version(base)
    newest_path = os.path.join(base, str(newest))
    marker = os.path.join(newest_path, _DIGEST_FILE)
    if newest and fileio.exists(marker) and io_utils.read_string_file(marker) == digest:
        return newest, newest_path
    for name in fileio.listdir(base):
        if name.startswith(_INCOMING_PREFIX):  # what a killed push left
            fileio.rmtree(os.path.join(base, name.rstrip("/")))
    # Also higher than what a killed push left on an object store.
    version = max([int(time.time()), *(number + 1 for number in _numbers(base))])
    path = os.path.join(base, str(version))
    if _REMOTE in base:
        _copy(model_path, path, digest)
    else:
        aside = os.path.join(base, f"{_INCOMING_PREFIX}{version}")
        _copy(model_path, aside, digest)
        fileio.rename(aside, path)
    return version, path


def _copy(model_path: str, folder: str, digest: str) -> None:
    """Copies a SavedModel so that the file which makes it one comes last."""
    io_utils.copy_dir(model_path, folder, deny_regex_patterns=[r"saved_model\.pb"])
    io_utils.write_string_file(os.path.join(folder, _DIGEST_FILE), digest)
    io_utils.copy_file(
        os.path.join(model_path, _SAVED_MODEL_FILE), os.path.join(folder, _SAVED_MODEL_FILE)
    )


def newest_version(base: str) -> int:
    """Returns the largest version under `base` that is whole, or 0 where there is none."""
    for number in sorted(_numbers(base), reverse=True):
        if fileio.exists(os.path.join(base, str(number), _SAVED_MODEL_FILE)):
            return number
    return 0


def _numbers(base: str) -> list[int]:
    if not fileio.exists(base):
        return []
    names = (name.rstrip("/") for name in fileio.listdir(base))
    return [int(name) for name in names if name.isdecimal()]


def _digest(model_path: str) -> str:
    """Tells one model from another by content: artifacts are numbered anew with new metadata."""
    identity = os.path.join(model_path, _IDENTITY_FILE)
    if fileio.exists(identity):
        text: str = io_utils.read_string_file(identity)
        return text
    return digest_of_folder(model_path)
