from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from components.candidate_embedder import embedding_files
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.identity import identity_of
from models.features.spec import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "columns": {"query_id": "user", "candidate_id": "item"},
        "features": {
            "candidate": {
                "genres": {"kind": "categorical", "separator": "|"},
                "country": {"kind": "categorical"},
                "price": {"kind": "numeric"},
            }
        },
    }
)
Row = tuple[bytes, list[bytes], bytes, float]
ROWS: list[Row] = [
    (b"a", [b"x", b"y"], b"de", 1.5),
    (b"b", [b"", b""], b"", float("nan")),
    (b"c\n\xff", [b"y", b""], b"fr", 0.0),
]
Identity = Callable[..., str]


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    (tmp_path / "towers").mkdir()
    (tmp_path / "towers" / "saved_model.pb").write_bytes(b"towers")

    def of(*parts: Sequence[Row], settings: str = "{}", noise: float = 0.0) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for number, rows in enumerate(parts):
            names, genres, countries, prices = zip(*rows, strict=True)
            raw = {
                "item": np.array(names, object),
                "genres": np.array(genres, object),
                "country": np.array(countries, object),
                "price": np.array(prices, np.float32),
            }
            vectors = np.full([len(rows), 2], noise, np.float32)
            embedding_files.write_table(
                str(folder / embedding_files.file_name(number, len(parts))),
                embedding_files.to_table(SPEC, raw, vectors),
            )
        files = EmbeddingFiles(str(folder), SPEC)
        return identity_of(str(tmp_path / "towers"), files, SPEC, settings)

    return of


def test_order_files_and_rounding_do_not_matter(identity: Identity) -> None:
    assert identity(ROWS) == identity(ROWS[2:], ROWS[:2]) == identity(ROWS[::-1], noise=1e-7)


@pytest.mark.parametrize(
    "changed",
    [
        ROWS[:2],
        [*ROWS, (b"d", [b"x", b""], b"de", 1.5)],
        [(b"A", *ROWS[0][1:]), *ROWS[1:]],
        [(b"a", [b"x", b"z"], b"de", 1.5), *ROWS[1:]],
        [(b"a", [b"x", b"y"], b"", 1.5), *ROWS[1:]],
        [(b"a", [b"x", b"y"], b"de", 1.25), *ROWS[1:]],
        # The same values, but of other candidates.
        [(b"a", *ROWS[2][1:]), ROWS[1], (b"c\n\xff", *ROWS[0][1:])],
    ],
)
def test_every_candidate_and_feature_matters(identity: Identity, changed: list[Row]) -> None:
    assert identity(changed) != identity(ROWS)


def test_settings_and_towers_matter(identity: Identity, tmp_path: Path) -> None:
    before = identity(ROWS)
    assert identity(ROWS, settings='{"k": 5}') != before
    (tmp_path / "towers" / "saved_model.pb").write_bytes(b"others")
    assert identity(ROWS) != before
