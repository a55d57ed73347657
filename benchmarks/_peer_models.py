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


def sasrec(cases: Any) -> Any:
    """SASRec of RecTools, of the size of our towers; the loss is that of a sampled softmax."""
    from rectools.models import SASRecModel

    model = SASRecModel(
        n_factors=64, n_heads=2, session_max_len=50, loss="sampled_softmax", n_negatives=64,
        epochs=int(cases["epochs"]), deterministic=True, recommend_torch_device="cpu",
    )  # fmt: skip
    model.fit(dataset(cases, "train"))
    users = np.unique(cases["history_rows"])
    found = model.recommend(
        users, dataset(cases, "history"), int(cases["k"]), bool(cases["exclude_seen"])
    )
    lists = np.full((users.max() + 1, int(cases["k"])), -1)
    lists[found["user_id"], found["rank"] - 1] = found["item_id"]
    return lists


def dataset(cases: Any, of: str) -> Any:
    """Return the training events or the histories as a data set of RecTools, in their order."""
    import pandas as pd
    from rectools.dataset import Dataset

    rows, items = cases[f"{of}_rows"], cases[f"{of}_items"]
    columns = {"user_id": rows, "item_id": items, "weight": 1.0, "datetime": np.arange(len(rows))}
    return Dataset.construct(pd.DataFrame(columns))


MODELS = {"als": als, "item_knn": item_knn, "sasrec": sasrec}


def main() -> None:
    """Fit the model in argument 1 and write its lists and costs."""
    name, path, output = sys.argv[1:]
    cases = dict(np.load(path))
    importlib.import_module(cases["package"].item())
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
