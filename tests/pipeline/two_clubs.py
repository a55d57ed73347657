"""A small project with known structure, and the command line to run `two-tower`."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TWO_TOWER = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]

Command = Callable[..., "subprocess.CompletedProcess[str]"]

_SCHEMA = """
default_environment: "TIMELINES"
default_environment: "CATALOGUE"
feature { name: "user" type: BYTES presence { min_fraction: 1.0 min_count: 1 }
  not_in_environment: "CATALOGUE" }
feature { name: "item" type: BYTES presence { min_fraction: 1.0 min_count: 1 } }
feature { name: "timestamp" type: INT presence { min_fraction: 1.0 min_count: 1 }
  not_in_environment: "CATALOGUE" }
feature { name: "is_target" type: INT int_domain { min: 0 max: 1 }
  presence { min_fraction: 1.0 min_count: 1 } not_in_environment: "CATALOGUE" }
feature { name: "club" type: BYTES string_domain { value: "red" value: "blue" }
  not_in_environment: "CATALOGUE" }
feature { name: "label" type: BYTES not_in_environment: "TIMELINES" }
feature { name: "price" type: FLOAT not_in_environment: "TIMELINES" }
"""


def write_two_clubs(folder: Path, **sections: Any) -> Path:
    """Write a project in which two clubs of users each like their own half of the items.

    There are 240 users in two clubs and 60 items in two halves. Each user has 14 different items of
    the own half. Popularity does not know the clubs, so a model that ranks the own half first finds
    a held-out item among 30 items instead of 60.

    Args:
        folder: Folder for `configs/clubs.yaml`, `schema/clubs/schema.pbtxt` and the data.
        **sections: Sections of the configuration, merged into the default ones.

    Returns:
        The path of the configuration.
    """
    chance = random.Random(7)
    (folder / "configs").mkdir(parents=True)
    (folder / "schema" / "clubs").mkdir(parents=True)
    (folder / "schema" / "clubs" / "schema.pbtxt").write_text(_SCHEMA)
    events = ["user,item,time"]
    for user in range(240):
        own = range(30) if user % 2 else range(30, 60)
        for step, item in enumerate(chance.sample(own, 14)):
            events.append(f"user {user},item é{item},{1_000_000_000 + user + 1000 * step}")
    (folder / "events.csv").write_text("\n".join(events) + "\n", encoding="utf-8")
    users = ["user,club"] + [f"user {u},{'red' if u % 2 else 'blue'}" for u in range(240)]
    (folder / "users.csv").write_text("\n".join(users) + "\n")
    items = ["item,label,price"]
    items += [f"item é{i},Thing number {i},{(i % 7) + 0.5}" for i in range(60)]
    (folder / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    content: dict[str, Any] = {
        "events": {
            "files": "events.csv",
            "query_id": "user",
            "candidate_id": "item",
            "timestamp": "time",
        },
        "candidates": {
            "file": "items.csv",
            "features": {"label": {"kind": "text"}, "price": {"kind": "numeric"}},
        },
        "queries": {"file": "users.csv", "features": {"club": {"kind": "categorical"}}},
        "split": {"method": "random", "eval_fraction": 0.2},
        "model": {"dimension": 8},
        "training": {"epochs": 12, "batch_size": 16, "learning_rate": 0.02},
        # Each item belongs to one club, so counting pairs works as well as a model here.
        "evaluation": {"ks": [1, 10, 30], "baseline_metric": "hit_rate@10", "min_lift": 0.8},
        "index": {"k": 20, "latency_budget_ms": 1000.0},  # exact, however busy the machine is
        "serving": {"validation_requests": 8},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    config = folder / "configs" / "clubs.yaml"
    config.write_text(yaml.safe_dump(content))
    return config


def run_to_summary(two_tower: Command, config: Path, *options: str) -> dict[str, Any]:
    """Run the pipeline, which must succeed, and return its summary."""
    done = two_tower("run", "--config", str(config), "--json", *options)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@contextmanager
def explorer(config: Path, *options: str) -> Iterator[str]:
    """Run an explorer of a project, and yield its address."""
    words = [*TWO_TOWER, "explore", "--config", str(config), "--port", "0", *options]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(30)
    assert status == 0
