"""The components, one a folder.

A container on Kubeflow or Vertex is told the type of an artifact by a title, which must read
`namespace.Name`, and imports it under that title. So our own types are found here too, by the
`TYPE_NAME` that they carry, and imported when they are asked for.

Whoever imports a component before TFX is spared the import of what no component of ours needs.
"""

import importlib
from typing import Any

from components.lazy_packages import import_lazily

import_lazily("tensorflow_model_analysis", "tfx.components")

_ARTIFACT_TYPES = {
    "CandidateEmbeddings": ("components.candidate_embedder.spec", "CandidateEmbeddings"),
    "IndexReport": ("components.index_builder.spec", "IndexReportArtifact"),
    "IngestReport": ("components.timeline_example_gen.artifacts", "IngestReport"),
    "SpanProfile": ("components.drift_gate.spec", "SpanProfile"),
    "RejectedRows": ("components.timeline_example_gen.artifacts", "RejectedRows"),
}


def __getattr__(name: str) -> Any:
    if name not in _ARTIFACT_TYPES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, class_name = _ARTIFACT_TYPES[name]
    return getattr(importlib.import_module(module), class_name)
