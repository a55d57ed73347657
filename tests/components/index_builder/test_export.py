from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from components.index_builder.export import identity_of
from tests.builders import feature_spec, write_embeddings

SPEC = feature_spec(
    candidate={
        "genres": {"kind": "categorical", "separator": "|"},
        "country": {"kind": "categorical"},
        "price": {"kind": "numeric"},
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
        names = ("item", "genres", "country", "price")
        embeddings = [
            (
                dict(zip(names, zip(*rows, strict=True), strict=True)),
                np.full([len(rows), 2], noise, np.float32),
            )
            for rows in parts
        ]
        files = write_embeddings(folder, SPEC, *embeddings)
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
