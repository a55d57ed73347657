"""Removes the empty objects by which TensorFlow marks folders of a bucket.

`gfile.makedirs` leaves one with a name that ends in a slash. Kubeflow Pipelines' launcher, which
downloads the inputs of every step, makes a file of it and then fails at what lies in the folder:
`mkdir …: not a directory` (`DownloadBlob` in its backend/src/v2/objectstore).
"""

import importlib
import importlib.util
from collections.abc import Iterable

_SCHEME = "gs://"
_PACKAGE = "google.cloud.storage"


class NoStorageClientError(Exception):
    """The image has no client of Google Cloud Storage; another image is needed."""


def require_client(uris: Iterable[str]) -> None:
    """Checks, before the work is done, that `remove_markers` could do its own.

    Raises:
        NoStorageClientError: A URI is in a bucket, and the client is not installed.
    """
    if any(uri.startswith(_SCHEME) for uri in uris) and not _is_installed():
        raise NoStorageClientError(
            "outputs on gs:// need google-cloud-storage, which this image lacks: build it with "
            "--build-arg LOCK=deploy/kubeflow/requirements.lock"
        )


def remove_markers(uris: Iterable[str]) -> int:
    """Removes the marks below each URI on gs://, and returns their number."""
    places = [uri.removeprefix(_SCHEME) for uri in uris if uri.startswith(_SCHEME)]
    if not places:
        return 0
    # 0.3 s to import: not for paths. `None` is no project; buckets know theirs.
    client = importlib.import_module(_PACKAGE).Client(project=None)
    count = 0
    for place in places:
        name, _, key = place.partition("/")
        prefix = f"{key.rstrip('/')}/" if key else ""
        found = client.list_blobs(name, prefix=prefix, fields="items(name,size),nextPageToken")
        marks = [blob for blob in found if blob.name.endswith("/") and not blob.size]
        # One that is gone by now is as good.
        client.bucket(name).delete_blobs(marks, on_error=lambda _: None)
        count += len(marks)
    return count


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_PACKAGE) is not None
    except ModuleNotFoundError:
        return False
