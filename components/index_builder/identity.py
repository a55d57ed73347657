"""The identity of a retrieval model: a hash of its towers, catalogue and settings.

Two exports of the same model have different bytes, because function names contain a counter. The
identity hashes the inputs instead: if they are unchanged, so are the served results.
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
    """Return a hash of everything that determines the results of a retrieval model.

    The hash does not depend on the order of the candidates. It does not include their vectors,
    which the towers and the features determine up to rounding.

    Args:
        towers_directory: SavedModel of `models.towers.export`.
        embeddings: The catalogue with its features.
        spec: IDs and features.
        settings: Configuration of the component, followed by the hash of the code.
    """
    names = [spec.candidate_id, *spec.candidate_features]
    totals = [0] * len(_SEEDS)
    for block in embeddings.blocks(names):
        for number, seed in enumerate(_SEEDS):
            # A sum does not depend on the order of the rows.
            totals[number] += int(_row_hashes(block, seed).sum(dtype=np.uint64))
    digest = hashlib.sha256()
    for part in (digest_of_folder(towers_directory), settings, str(embeddings.num_candidates)):
        digest.update(part.encode() + b"\0")
    for total in totals:
        digest.update((total % 2**64).to_bytes(8, "big"))
    return digest.hexdigest()


def _row_hashes(block: pa.RecordBatch, seed: int) -> Hashes:
    total = np.zeros(len(block), np.uint64)
    for number, column in enumerate(block.columns):
        total += hash_strings(_as_text(column), seed + len(_SEEDS) * number)
    return mix(total)


def _as_text(column: Any) -> Any:
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, _BETWEEN_VALUES)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())
    return column.fill_null(b"" if pa.types.is_binary(column.type) else "")
