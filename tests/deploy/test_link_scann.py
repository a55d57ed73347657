"""The edits that link ScaNN's ops into TensorFlow Serving, on files like the real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "tf_serving_scann" / "link_scann.py"
SERVING = {
    "tensorflow_serving/model_servers/BUILD": """SUPPORTED_TENSORFLOW_OPS = if_v2([]) + [
    "@org_tensorflow_text//tensorflow_text:ops_lib",
    "@org_tensorflow_decision_forests//inference:kernel_and_op",
]
""",
    "tensorflow_serving/workspace.bzl": '''def tf_serving_workspace():
    """All TensorFlow Serving external dependencies."""

    http_archive(name = "bazel_skylib")
''',
}
SCANN = {
    "scann/scann_ops/cc/BUILD.bazel": """load("@pybind11_bazel//:build_defs.bzl", "pybind_library")

cc_library(
    name = "scann_ops",
    deps = [
        "@local_config_tf//:libtensorflow_framework",
        "@local_config_tf//:tf_header_lib",
    ],
    alwayslink = 1,
)

pybind_library(
    name = "scann_npy",
    deps = [
        ":scann",
    ],
)
""",
    "scann/oss_wrappers/BUILD.bazel": """cc_library(
    name = "tf_dependency",
    deps = [
        "@local_config_tf//:libtensorflow_framework",
        "@local_config_tf//:tf_header_lib",
    ],
)
""",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for folder, files in (("serving", SERVING), ("scann", SCANN)):
        for name, text in files.items():
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return tmp_path


def link(sources: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(sources / "serving"), str(sources / "scann")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_links_the_ops_and_nothing_of_python(sources: Path) -> None:
    assert link(sources).returncode == 0
    build = (sources / "serving/tensorflow_serving/model_servers/BUILD").read_text()
    assert build.count('"@com_google_scann//scann/scann_ops/cc:scann_ops_static",') == 1
    workspace = (sources / "serving/tensorflow_serving/workspace.bzl").read_text()
    place = f'    native.local_repository(name = "com_google_scann", path = "{sources}/scann")\n'
    assert place in workspace
    ops = (sources / "scann/scann/scann_ops/cc/BUILD.bazel").read_text()
    assert "pybind" not in ops
    assert "scann_npy" not in ops
    assert 'name = "scann_ops_static"' in ops
    for file in (sources / "scann").rglob("BUILD.bazel"):
        assert "local_config_tf" not in file.read_text()
        assert '"@org_tensorflow//tensorflow/core:tensorflow_opensource",' in file.read_text()
        compile(file.read_text(), str(file), "exec")  # Starlark is Python's syntax here.


@pytest.mark.parametrize("name", SERVING)
def test_ends_where_the_sources_are_others(sources: Path, name: str) -> None:
    (sources / "serving" / name).write_text("")
    done = link(sources)
    assert done.returncode == 1
    assert name in done.stderr
