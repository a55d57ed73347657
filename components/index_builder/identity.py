"""Which catalogue, towers and settings a retrieval model is made of.

Two exports of the same model differ in their bytes: the names of functions count what the process
has traced. What goes in tells whether a push would change an answer.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.files import digest_of_folder
from components.interactions.stable_hash import Hashes, hash_strings, mix
from models.features.spec import FeatureSpec

_SEEDS = (1, 2)
_BETWEEN_VALUES = "\x1f"


def identity_of(
    towers_directory: str, embeddings: EmbeddingFiles, spec: FeatureSpec, settings: str
) -> str:
    """Returns a hash of all that decides what a retrieval model answers.

    The order of the candidates does not count, and neither do their vectors: they follow from the
    towers and the features, up to the rounding of a batch.

    Args:
        towers_directory: SavedModel of `models.towers.export`.
        embeddings: The catalogue with its features.
        spec: Ids and features.
        settings: Of the index, and the code's hash.
    """
    names = [spec.candidate_id, *spec.candidate_features]
    totals = [0] * len(_SEEDS)
    for block in embeddings.blocks(names):
        for place, seed in enumerate(_SEEDS):
            # The order of the rows does not change their sum.
            totals[place] += int(_row_hashes(block, seed).sum(dtype=np.uint64))
    digest = hashlib.sha256()
    for part in (digest_of_folder(towers_directory), settings, str(embeddings.num_candidates)):
        digest.update(part.encode() + b"\0")
    for total in totals:
        digest.update((total % 2**64).to_bytes(8, "big"))
    return digest.hexdigest()


def _row_hashes(block: pa.RecordBatch, seed: int) -> Hashes:
    total = np.zeros(len(block), np.uint64)
    for place, column in enumerate(block.columns):
        total += hash_strings(_as_text(column), seed + len(_SEEDS) * place)
    return mix(total)


def _as_text(column: Any) -> Any:
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, _BETWEEN_VALUES)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())
    return column.fill_null(b"" if pa.types.is_binary(column.type) else "")
