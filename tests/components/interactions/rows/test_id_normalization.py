import pyarrow as pa
import pytest

from components.interactions.rows.id_normalization import find_remedy, normalize

IDS = [f"i{i}" for i in range(3)] + ["42", "7", "Ärmel", "0"]


@pytest.mark.parametrize(
    ("others", "names", "met"),
    [
        ([f" {id_}\u00a0" for id_ in IDS], ["strip"], 7),
        ([id_.swapcase() for id_ in IDS], ["case"], 4),
        (["i0", "42.0", "7.", "0.00"], ["float_suffix"], 3),
        (["042", "00007", "0"], ["leading_zeros"], 2),
        (["A\u0308rmel"], ["nfc"], 1),
        (["A\u0308RMEL ", "I1", "0042.0"], ["nfc", "strip", "case", "float_suffix",
                                           "leading_zeros"], 3),
        (["7", "item 42", "i10"], None, 0),
    ],
)  # fmt: skip
def test_finds_the_fewest_normalizations_that_make_ids_meet(
    others: list[str], names: list[str] | None, met: int
) -> None:
    unmatched = [id_ for id_ in IDS if id_ not in others]
    # Blocks of one ID: those that meet are found across blocks.
    remedy = find_remedy(pa.array(unmatched), (pa.array([other]) for other in others))
    if names is None:
        assert remedy is None
        return
    assert remedy is not None
    assert list(remedy.normalizations) == names
    assert remedy.share == pytest.approx(met / len(unmatched))
    mine, other = remedy.pair
    assert mine in unmatched
    assert other in others
    pair = normalize(pa.array([mine, other]), remedy.normalizations)
    assert pair[0] == pair[1]


def test_normalizations_keep_other_ids_and_nulls() -> None:
    ids = ["1.50", "x.0", "a b", "00x", "0", "v1.0.0", "", None]
    every = ["nfc", "strip", "case", "float_suffix", "leading_zeros"]
    assert normalize(pa.array(ids), every).to_pylist() == ids
