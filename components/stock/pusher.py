"""TFX's Pusher, except that a version appears in the serving directory whole or not at all.

TensorFlow Serving loads any folder with a number as its name within a second, and the stock
executor copies into that folder file by file. This one copies to another folder and renames it. An
object store cannot rename a folder: there `saved_model.pb` is copied last, and a folder without
that file is not a version.
"""

import os
import time
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components import files
from components.artifacts import require_infra_blessing, require_model_blessing

# TensorFlow Serving ignores folders whose name is not a number.
_INCOMING_PREFIX = "incoming-"
_SAVED_MODEL_FILE = "saved_model.pb"
# Whether this execution pushed the version, or found it in service already.
NEWLY_PUSHED_PROPERTY = "newly_pushed"
# TensorFlow Serving ignores this folder.
_DIGEST_FILE = os.path.join("assets.extra", "digest")
# An export can say what it was made from; this decides whether two exports are the same.
_IDENTITY_FILE = os.path.join("assets.extra", "identity")


class Executor(executor.Executor):
    """Run Pusher."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Push the model.

        Args:
            input_dict: `model`, `model_blessing`, `infra_blessing`.
            output_dict: `pushed_model`, with the destination and version as properties.
            exec_properties: `push_destination` with a filesystem's `base_directory`.

        Raises:
            NotBlessedError: A gate refused the model. The serving directory is left as it was.
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
        files.write_text(os.path.join(pushed.uri, "destination.txt"), path + "\n")
        pushed.set_int_custom_property(NEWLY_PUSHED_PROPERTY, int(version != before))
        self._MarkPushed(pushed, pushed_destination=path, pushed_version=str(version))


def push(model_path: str, base: str) -> tuple[int, str]:
    """Copy a SavedModel to `base` as its newest version, unless it is the newest already.

    Args:
        model_path: Folder of the SavedModel.
        base: Base path of the versions.

    Returns:
        The version and its folder.
    """
    digest = _digest(model_path)
    newest = newest_version(base)
    newest_path = os.path.join(base, str(newest))
    marker = os.path.join(newest_path, _DIGEST_FILE)
    if newest and files.exists(marker) and files.read_text(marker) == digest:
        return newest, newest_path
    for name in files.list_folder(base):
        if name.startswith(_INCOMING_PREFIX):  # left by a push that was killed
            files.remove(os.path.join(base, name))
    # Also higher than what a killed push left on an object store.
    version = max([int(time.time()), *(number + 1 for number in _numbers(base))])
    path = os.path.join(base, str(version))
    if files.is_remote(base):
        _copy(model_path, path, digest)
    else:
        incoming = os.path.join(base, f"{_INCOMING_PREFIX}{version}")
        _copy(model_path, incoming, digest)
        files.rename([incoming], [path])
    return version, path


def _copy(model_path: str, folder: str, digest: str) -> None:
    files.write_text(os.path.join(folder, _DIGEST_FILE), digest)
    files.copy_folder(model_path, folder, last=_SAVED_MODEL_FILE)


def newest_version(base: str) -> int:
    """Return the largest complete version under `base`, or 0 if there is none."""
    for number in sorted(_numbers(base), reverse=True):
        if files.exists(os.path.join(base, str(number), _SAVED_MODEL_FILE)):
            return number
    return 0


def _numbers(base: str) -> list[int]:
    return [int(name) for name in files.list_folder(base) if name.isdecimal()]


def _digest(model_path: str) -> str:
    """Return what tells models apart by content: artifact IDs start again with new metadata."""
    identity = os.path.join(model_path, _IDENTITY_FILE)
    if files.exists(identity):
        return files.read_text(identity)
    return files.digest_of_folder(model_path)
