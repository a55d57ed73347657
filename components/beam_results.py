"""Bring the results of Beam workers back to the process that started them."""

import os
import pickle
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam

from components import files

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

    `build` adds the steps and returns the collection. Its elements are pickled to a file in an
    existing folder.
    """
    path = os.path.join(folder, uuid.uuid4().hex)
    with make_pipeline() as pipeline:
        (
            build(pipeline)
            | "AddOneKey" >> beam.Map(_with_one_key)
            | "Gather" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteForDriver(path))
        )
    if not files.exists(path):  # the collection was empty
        return []
    elements: list[Any] = pickle.loads(files.read_bytes(path))
    return elements


def _with_one_key(element: Any) -> tuple[int, Any]:
    return 0, element


class _WriteForDriver(beam.DoFn):
    """Write the elements to a file, because the driver shares no memory with the workers."""

    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, keyed: tuple[int, Iterable[Any]]) -> Iterable[None]:
        _, elements = keyed
        files.write_bytes(self._path, pickle.dumps(list(elements)))
        return ()
