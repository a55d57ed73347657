import pyarrow as pa

from components.interactions.rows.checks import deduplicate_rows
from components.interactions.sources.block import CONFLICT
from components.interactions.sources.columns import FILE, LINE


def test_equal_rows_collapse_and_others_conflict_with_the_first():
    rows = pa.table(
        {
            "c": ["a", "b", "a", "a", "b", "c", "b"],
            "title": ["A", "B", "A", "X", "B", "C", "B"],
            "year": pa.array([1, None, 1, 1, None, 3, 2], pa.float32()),
            FILE: pa.array([0] * 7, pa.int32()),
            LINE: list(range(7)),
        }
    )
    table, num_repeated, conflicts = deduplicate_rows(rows, "c", "name")
    assert table["c"].to_pylist() == ["a", "b", "c"]
    assert table[LINE].to_pylist() == [0, 1, 5]
    assert num_repeated == 2  # rows 2 and 4
    assert conflicts.to_pylist() == [
        {FILE: 0, LINE: row, "column": "name", "value": value, "reason": CONFLICT}
        for row, value in ((3, "a"), (6, "b"))
    ]


def test_rows_without_features_only_repeat():
    rows = pa.table({"c": ["a", "a"], FILE: pa.array([0, 1], pa.int32()), LINE: [0, 0]})
    table, num_repeated, conflicts = deduplicate_rows(rows, "c", "c")
    assert (len(table), num_repeated, len(conflicts)) == (1, 1, 0)
