import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.file import load
from pipeline.config.sections import BeamConfig
from pipeline.errors import ConfigError
from tests.pipeline.two_clubs import ROOT

EVENTS = {"files": "events.csv", "query_id": "user", "candidate_id": "item", "timestamp": "time"}
MINIMAL: dict[str, Any] = {"events": EVENTS}


def write(folder: Path, content: Any, name: str = "use.yaml") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(folder / name)


def test_a_minimal_file_has_defaults_for_everything_else(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL))
    assert config.name == "use"
    assert config.split.method == "temporal"
    assert config.split.split_names == ("train", "eval", "candidates")
    assert config.index.k == 100


def test_paths_start_above_configs_and_from_the_file_elsewhere(tmp_path: Path) -> None:
    inside = load(write(tmp_path / "configs", MINIMAL))
    assert inside.resolve("events.csv") == str(tmp_path / "events.csv")
    assert inside.serving_dir == str(tmp_path / "runs" / "use" / "serving" / "retrieval")
    outside = load(write(tmp_path / "elsewhere", MINIMAL))
    assert outside.resolve("events.csv") == str(tmp_path / "elsewhere" / "events.csv")
    assert outside.resolve("gs://bucket/x.csv") == "gs://bucket/x.csv"
    assert outside.resolve("/data/x.csv") == "/data/x.csv"


def test_every_committed_configuration_loads() -> None:
    for path in (Path(__file__).resolve().parents[3] / "configs").glob("*.yaml"):
        assert load(str(path)).name == path.stem


def test_overrides_are_yaml_and_reach_nested_keys(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    words = 'ingest.missing_values=["NULL", nan]'
    config = load(
        path, ["training.epochs=3", "evaluation.ks=[1, 10]", "queries.features={}", words]
    )
    assert config.training.epochs == 3
    assert config.evaluation.ks == (1, 10)
    assert config.ingest.missing_values == ("NULL", "nan")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.dimensions=3", ["unknown key `model.dimensions`", "did you mean `dimension`?"]),
        ("modell.x=3", ["unknown key `modell`", "did you mean `model`?"]),
        ("drift.action=stop", ["`drift` compares spans", "{SPAN}"]),
        ("events.spans.window=2", ["`events.spans` needs a pattern with {SPAN}"]),
        ("events.files='{SPAM}.csv'", ["unknown placeholder {SPAM}"]),
        ("training.epochs=many", ["`training.epochs`", "integer", "'many'", "passes over"]),
        ("events.timestamp=null", ["`split.method: temporal` needs `events.timestamp`"]),
        ("index.reorder=5", ["`reorder` must be at least `k` 100"]),
        ("evaluation.split=test", ["`evaluation.split`", "'test'", "train, eval, candidates"]),
        ("evaluation.min_metrics={hits@10: 1}", ["unknown metric 'hits@10'", "hit_rate"]),
        ("evaluation.slices=[age]", ["`evaluation.slices`", "'age'"]),
        ("evaluation.baselines=[popular]", ["`evaluation.baselines", "'popularity'"]),
        ("queries.features={age: {kind: numeric}}", ["`queries.features` needs", "queries.file"]),
        ("serving.return_fields=[title]", ["`serving.return_fields` needs", "candidates.file"]),
        ("candidates.available_from=day", ["`candidates.available_from` needs `candidates.file`"]),
        (
            "candidates.file=x.csv;serving.return_fields=[title, title]",
            ["`serving.return_fields` names a column twice"],
        ),
        ("candidates.file=x.csv;serving.return_fields=[The title]", ["The title", "`column`"]),
        ("model.history_encoder=none", ["query tower needs an input"]),
        ("training.early_stopping_metric=recall", ["hit_rate@K, mrr@K or ndcg@K", "'recall'"]),
        ("no-equals", ["--set takes section.key=value"]),
        ("training.batch_size='32'", ["`training.batch_size`", "integer", "'32'"]),
        ("evaluation.exclude_seen='no'", ["`evaluation.exclude_seen`", "true or false"]),
        ("runs=gs://bucket/runs", ["`runs`: must be a local", "gs://bucket", "compile"]),
        ("root=/x", ["`root` is not a setting"]),
        ("evaluation.exclude_seen=no", ["`evaluation.exclude_seen`", "true or false, got 'no'"]),
        ("split.eval_from=20240501", ["`split.eval_from`: input", "datetime, or", "'newest_span'"]),
        ("tuning.space={model.dimension: {min: 2}}", ["`tuning.space.model.dimension.max` is"]),
        ("ingest.bigquery={projekt: x}", ["unknown key", "did you mean `project`?"]),
        ("training={epochs: 1, epochs: 2}", ["--set training=", "`epochs`", "lines 1 and 1"]),
        ("ingest.missing_values=[NULL]", ["`ingest.missing_values`", "must be in quotes"]),
        ("ranking={enabled: true, num_candidates: 50}", ["must be at least `index.k` (100)"]),
        ("data.min_rating=4", ["`data.min_rating` is now `events.min_rating`"]),
        (
            "split={method: random};events.timestamp=null;evaluation.baselines=[recent_popularity]",
            ["`recent_popularity` needs"],
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    tmp_path: Path, override: str, parts: list[str]
) -> None:
    path = write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load(path, override.split(";"))
    for part in parts:
        assert part in str(caught.value)


def test_returned_columns_are_read_but_not_learned_from(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    features = "candidates.features={price: {kind: numeric}}"
    config = load(path, ["candidates.file=x.csv", features, "serving.return_fields=[title, price]"])
    assert {name: f.kind for name, f in config.spec.catalogue_features.items()} == {
        "title": "text",
        "price": "numeric",
    }
    assert list(config.spec.candidate_features) == ["price"]


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        ([], "hit_rate@10"),
        (["evaluation.baseline_metric=query_ndcg@50"], "ndcg@50"),
        (["evaluation.baseline_metric=map@5"], "mrr@5"),
        (["training.early_stopping_metric=loss"], "loss"),
    ],
)
def test_early_stopping_watches_what_is_most_like_the_gate(
    tmp_path: Path, settings: list[str], metric: str
) -> None:
    assert load(write(tmp_path, MINIMAL), settings).watched_metric == metric


def test_old_sections_are_refused_with_their_translation(tmp_path: Path) -> None:
    old = {
        "data": {"interactions": "e.csv", "candidates": "i.csv", "bad_rows": "reject"},
        "columns": {"query_id": "user", "candidate_id": "item", "timestamp": "time"},
        "features": {"candidate": {"price": {"kind": "numeric"}}},
    }
    with pytest.raises(ConfigError, match="grouped as events") as caught:
        load(write(tmp_path, {**old, "training": {"epochs": 3}}))
    translated = yaml.safe_load(str(caught.value).split("\n\n")[1])
    config = load(write(tmp_path, translated))
    assert config.ingestion.data.interactions == str(tmp_path / "e.csv")
    assert config.ingest.bad_rows == "reject"
    assert config.candidates.features["price"].kind == "numeric"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", r"use\.yaml"),
        ("just words", r"use\.yaml"),
        ("\x00", r"use\.yaml"),
        ("events: &a {files: *a}", r"use\.yaml.*anchor"),
        ("training: {epochs: 1}\nsplit: {}\ntraining: {}", r"use\.yaml.*lines 1 and 3"),
        ({"candidates": {"file": "x.csv"}}, "`events` is missing"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, content))


def test_a_configuration_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="did you mean `movielens_100k`"):
        load("movielens_100")
    write(tmp_path / "configs", MINIMAL, "mine.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"Known: mine, movielens_100k"):
        load("clicks")
    write(tmp_path, MINIMAL, "here.yaml")
    with pytest.raises(ConfigError, match=r"did you mean `here\.yaml`\? Known: mine, .*here\.yaml"):
        load("her")
    with pytest.raises(ConfigError, match=r"no configuration file .*hero\.yaml; .* `here\.yaml`"):
        load(str(tmp_path / "hero.yaml"))


def test_a_message_names_a_section_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, MINIMAL), ["metadata.port=3", "tuning.enabled=true"])
    assert str(caught.value).split() == str(caught.value).replace("`metadata`:", "").split()
    assert "\n  `tuning.enabled` needs" in str(caught.value)


@pytest.mark.parametrize(
    ("events", "without_effect"),
    [
        ({"rating": "stars"}, ["rating"]),
        ({"rating": "stars", "min_rating": 2}, []),
        ({"rating": "stars", "rating_weights": {1: 0.5}}, []),
        ({"event_type": "type"}, ["event_type"]),
        ({"rating": "stars", "event_type": "type", "types": {"buy": 2}}, ["rating"]),
    ],
)
def test_declared_columns_without_effect_are_named(
    tmp_path: Path, events: dict[str, Any], without_effect: list[str]
) -> None:
    config = load(write(tmp_path, {"events": EVENTS | events}))
    found = config.events.columns_without_effect()
    assert [text.split(":")[0] for text in found] == [f"`events.{name}" for name in without_effect]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"events.types": "{buy: 2}"}, "`events.types` needs `events.event_type`"),
        ({"events.rating_weights": "{5: 2}"}, "`events.rating_weights` needs `events.rating`"),
        ({"events.rating": "stars", "events.rating_weights": "{a: 2}"}, "different numbers, got a"),
        (
            {
                "events.event_type": "type",
                "events.types": "{buy: 2, view: 0}",
                "evaluation.targets": "[view]",
            },
            "`evaluation.targets` must name types with a weight above 0 .* Known: buy",
        ),
        ({"training.event_weights": "{buy: 2}"}, "is now `events.types`"),
    ],
)
def test_weights_need_their_column_and_targets_a_weight(
    tmp_path: Path, settings: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(write(tmp_path, MINIMAL), [f"{name}={value}" for name, value in settings.items()])


def test_dates_are_moments_in_utc(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL), ["split.eval_from=1998-01-01"])
    assert config.split.eval_from is not None
    assert config.split.eval_from.isoformat() == "1998-01-01T00:00:00+00:00"


def test_beam_gets_no_argument_that_is_its_default():
    # With one, TFX packs itself for remote workers before each component.
    assert BeamConfig().pipeline_args == []
    assert BeamConfig(options=("--x=1",)).pipeline_args == ["--x=1"]
    assert BeamConfig(workers=2).pipeline_args == [
        "--runner=DirectRunner",
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    ]


def test_a_configuration_is_read_without_tensorflow(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    code = (
        "import sys; from pipeline.config.file import load; load(sys.argv[1]).ingest; "
        "print([name for name in ('tensorflow', 'tfx', 'apache_beam') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("runner", ["DataflowRunner", "dataflowrunner"])
def test_workers_that_see_no_file_of_this_machine_are_refused_here(
    tmp_path: Path, runner: str
) -> None:
    from pipeline.definition import create_pipeline, create_refresh_pipeline

    config = load(write(tmp_path, MINIMAL), [f"beam.runner={runner}"])
    for create in (create_pipeline, create_refresh_pipeline):
        with pytest.raises(ConfigError, match=r"kubeflow.*--pipeline-root gs://"):
            create(config)
