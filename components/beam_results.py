"""Bring the results of Beam workers back to the process that started them."""

import pickle
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

MakePipeline = Callable[[], beam.Pipeline]


def pipelines_like(pipeline: beam.Pipeline) -> MakePipeline:
    """Return a function that creates Beam pipelines with the options of the given one.

    TFX gives a function-style component one pipeline, but ingestion runs several.
    """
    return lambda: beam.Pipeline(runner=pipeline.runner, options=pipeline.options)


def run_and_collect(
    make_pipeline: MakePipeline, build: Callable[[beam.Pipeline], beam.PCollection], folder: str
) -> list[Any]:
    """Run a pipeline and return the elements of a collection, in no particular order.

    Args:
        make_pipeline: Returns a new Beam pipeline.
        build: Adds the steps and returns the collection. Its elements are pickled.
        folder: An existing folder for the hand-over.
    """
    path = FileSystems.join(folder, uuid.uuid4().hex)
    with make_pipeline() as pipeline:
        (
            build(pipeline)
            | "OneKey" >> beam.Map(_with_one_key)
            | "Together" >> beam.GroupByKey()
            | "HandOver" >> beam.ParDo(_HandOver(path))
        )
    if not FileSystems.exists(path):  # the collection was empty
        return []
    with FileSystems.open(path) as stream:
        found: list[Any] = pickle.loads(stream.read())
    return found


def make_folder(path: str) -> str:
    """Makes a folder unless it is there; returns it."""
    if not FileSystems.exists(path):
        FileSystems.mkdirs(path)
    return path


def remove_folder(path: str) -> None:
    """Removes a folder of files, if there is one."""
    # File by file, because object stores have no folders; where there is one, it goes last.
    (found,) = FileSystems.match([FileSystems.join(path, "*")])
    if found.metadata_list:
        FileSystems.delete([entry.path for entry in found.metadata_list])
    if FileSystems.exists(path):
        FileSystems.delete([path])


def _with_one_key(found: Any) -> tuple[int, Any]:
    return 0, found


class _HandOver(beam.DoFn):
    """Hands what the workers found to the driver, which shares no memory with them."""

    def __init__(self, path: str):
        self._path = path

    def process(self, keyed: tuple[int, Iterable[Any]]) -> Iterable[None]:
        _, found = keyed
        with FileSystems.create(self._path) as stream:
            stream.write(pickle.dumps(list(found)))
        return ()
