"""The model of the serving benchmark is built with the current code of this project."""

from pathlib import Path

import pytest

from benchmarks._serving_model import export
from serving.clients import RetrievalClient
from serving.launcher import running_model_server


@pytest.mark.slow
@pytest.mark.parametrize("num_ranked", [0, 50])
def test_the_model_of_the_serving_benchmark_is_built_and_served(
    tmp_path: Path, num_ranked: int
) -> None:
    (tmp_path / "served").mkdir()
    export(f"{tmp_path}/served/1", 300, "scann", 20, num_ranked)
    with (
        running_model_server(tmp_path / "served") as server,
        RetrievalClient(server.grpc_target, query_id_name="user_id") as client,
    ):
        best = client.recommend("u1", history=["item_3"], k=10)
    assert len(set(best.candidate_ids)) == 10
    assert ("retrieval_scores" in best.fields) == (num_ranked > 0)
    assert set(best.candidate_ids) <= {f"item_{number}" for number in range(300)}
