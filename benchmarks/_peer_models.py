"""Fit a model of another library and write its recommendations; runs in that library's environment.

Usage: python _peer_models.py MODEL CASES OUTPUT
"""

import importlib
import json
import os
import resource
import sys
import time
from typing import Any

import numpy as np


def matrix(cases: Any, of: str) -> Any:
    """Return the training events (`train`) or the histories (`history`) as a CSR matrix."""
    from scipy.sparse import csr_matrix

    rows, items = cases[f"{of}_rows"], cases[f"{of}_items"]
    shape = (rows.max() + 1, cases["num_items"])
    ones = csr_matrix((np.ones(len(rows), np.float32), (rows, items)), shape)
    ones.data[:] = 1.0  # a repeated event counts once
    return ones


def implicit_lists(cases: Any, model: Any, **options: Any) -> Any:
    model.fit(matrix(cases, "train"), show_progress=False)
    histories = matrix(cases, "history")
    lists, _ = model.recommend(
        np.arange(histories.shape[0]), histories, N=int(cases["k"]),
        filter_already_liked_items=bool(cases["exclude_seen"]), **options,
    )  # fmt: skip
    return lists


def als(cases: Any) -> Any:
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=128, regularization=10.0, alpha=40.0, iterations=15, random_state=1
    )
    return implicit_lists(cases, model, recalculate_user=True)


def item_knn(cases: Any) -> Any:
    from implicit.nearest_neighbours import CosineRecommender

    return implicit_lists(cases, CosineRecommender(K=5000))


MODELS = {"als": als, "item_knn": item_knn}


def main() -> None:
    """Fit the model in argument 1 and write its lists and costs."""
    name, path, output = sys.argv[1:]
    cases = dict(np.load(path))
    importlib.import_module("implicit")
    before, started = os.times(), time.monotonic()
    lists = MODELS[name](cases)
    after = os.times()
    np.save(output + ".npy", lists)
    figures = {
        "cpu_s": after.user + after.system - before.user - before.system,
        "wall_s": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    with open(output + ".json", "w", encoding="utf-8") as file:
        json.dump(figures, file)


if __name__ == "__main__":
    main()
