import json
import runpy
import sys
from typing import Any

import pytest

from pipeline.code_hash import application_hash
from pipeline.orchestrators.kubeflow import step

OUTPUTS = {"model": {"artifacts": [{"name": "model", "uri": "gs://bucket/model"}]}}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the step did, in order; TFX's entrypoint and the bucket are left out."""
    done: list[Any] = []
    monkeypatch.setattr(step, "require_client", lambda uris: done.append(("checked", *uris)))
    monkeypatch.setattr(step, "remove_markers", lambda uris: done.append(("cleaned", *uris)))
    told = json.dumps({"outputs": {"artifacts": OUTPUTS}})
    monkeypatch.setattr(sys, "argv", ["step", "--json_serialized_invocation_args", told])
    return done


def entrypoint(monkeypatch: pytest.MonkeyPatch, called: list[Any], code: object) -> None:
    def run(module: str, **_: object) -> None:
        called.append(module)
        sys.exit(code)  # type: ignore[arg-type]

    monkeypatch.setattr(runpy, "run_module", run)


def test_outputs_are_cleaned_once_the_work_is_done(
    called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint(monkeypatch, called, None)
    step.main()
    place = "gs://bucket/model"
    assert called == [("checked", place), step.ENTRYPOINT, ("cleaned", place)]


def test_a_failure_stays_a_failure(called: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    entrypoint(monkeypatch, called, 1)
    with pytest.raises(SystemExit, match="1"):
        step.main()
    assert called[-1] == step.ENTRYPOINT


def test_an_image_of_other_code_is_refused_before_the_work(
    called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint(monkeypatch, called, None)
    monkeypatch.setenv(step.CODE_HASH_VARIABLE, "0" * 16)
    with pytest.raises(SystemExit, match=r"other code \(\w{16}\) than .*\(0{16}\); build"):
        step.main()
    assert not called
    monkeypatch.setenv(step.CODE_HASH_VARIABLE, application_hash())
    step.main()
    assert step.ENTRYPOINT in called
