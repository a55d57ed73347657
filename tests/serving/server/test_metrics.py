from __future__ import annotations

from serving.server.metrics import MAX_CELLS, Counter, Histogram, Metrics


def test_names_labels_and_numbers_are_written_as_tensorflow_serving_does() -> None:
    metrics = Metrics()
    metrics.request_count.add("retrieval", "OK")
    metrics.request_count.add("retrieval", "OK")
    metrics.request_count.add('a"\\', "NOT_FOUND")
    assert metrics.page().decode() == (
        "# TYPE :tensorflow:serving:request_count counter\n"
        ':tensorflow:serving:request_count{model_name="a\\"\\\\",status="NOT_FOUND"} 1\n'
        ':tensorflow:serving:request_count{model_name="retrieval",status="OK"} 2\n'
    )


def test_histograms_are_cumulative_and_limits_grow() -> None:
    histogram = Histogram("/a/b", "x", first_limit=10, factor=1.8, limits=3)
    for value in (9, 10, 20, 1000):
        histogram.add(value, "y")
    assert list(histogram.lines()) == [
        "# TYPE :a:b histogram",
        ':a:b_bucket{x="y",le="10"} 1',  # a value on a limit belongs to the bucket above it
        ':a:b_bucket{x="y",le="18"} 2',
        ':a:b_bucket{x="y",le="32.4"} 3',
        ':a:b_bucket{x="y",le="+Inf"} 4',
        ':a:b_sum{x="y"} 1039',
        ':a:b_count{x="y"} 4',
    ]


def test_the_number_of_label_values_has_an_end() -> None:
    counter = Counter("/c", "model_name")
    for number in range(MAX_CELLS + 5):
        counter.add(f"m{number}")
    lines = list(counter.lines())
    assert len(lines) == MAX_CELLS + 2
    assert ':c{model_name="other"} 5' in lines
