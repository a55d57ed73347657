"""TFX's Pusher, except that it applies the catalogue gate and that a version appears as a whole.

TensorFlow Serving loads any folder whose name is a number, within a second, and the stock executor
copies into that folder file by file. This executor copies to another folder and renames it. An
object store cannot rename a folder, so there `saved_model.pb` is copied last, and a folder without
that file is not a version.
"""

import json
import os
import time
from typing import Any

from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import standard_component_specs
from tfx.utils import proto_utils

from components import files
from components.artifacts import Artifacts, require_infra_blessing, require_model_blessing
from components.stock.catalogue_gate import check_candidates

# TensorFlow Serving ignores folders whose name is not a number.
_INCOMING_PREFIX = "incoming-"
_SAVED_MODEL_FILE = "saved_model.pb"
# 1 if this execution pushed the version, 0 if the version was served already.
NEWLY_PUSHED_PROPERTY = "newly_pushed"
# TensorFlow Serving ignores this folder.
_DIGEST_FILE = os.path.join("assets.extra", "digest")
# A file of an export that identifies what it was made from.
_IDENTITY_FILE = os.path.join("assets.extra", "identity")
# Key in `custom_config` of the setting `candidates.max_removed`.
MAX_REMOVED_KEY = "max_removed"


class Executor(executor.Executor):
    """Run Pusher."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Push the model; raise NotBlessedError before any change if a gate refused it."""
        [model_blessing] = input_dict[standard_component_specs.MODEL_BLESSING_KEY]
        [infra_blessing] = input_dict[standard_component_specs.INFRA_BLESSING_KEY]
        require_model_blessing(model_blessing)
        require_infra_blessing(infra_blessing)
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination
        )
        base = destination.filesystem.base_directory
        before = newest_version(base)
        model_path = self.GetModelPath(input_dict)
        if before:
            settings = json.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
            served = os.path.join(base, str(before))
            check_candidates(model_path, served, settings[MAX_REMOVED_KEY])
        version, path = push(model_path, base)
        [pushed] = output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        files.write_text(os.path.join(pushed.uri, "destination.txt"), path + "\n")
        pushed.set_int_custom_property(NEWLY_PUSHED_PROPERTY, int(version != before))
        self._MarkPushed(pushed, pushed_destination=path, pushed_version=str(version))


def push(model_path: str, base: str) -> tuple[int, str]:
    """Copy a SavedModel to `base` as its newest version, unless it is the newest already.

    Return the version and its folder.
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
    # Incomplete versions on an object store count too, so that their numbers are not used again.
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
    """Return a digest of the content. Artifact IDs are not unique across metadata stores."""
    identity = os.path.join(model_path, _IDENTITY_FILE)
    if files.exists(identity):
        return files.read_text(identity)
    return files.digest_of_folder(model_path)
