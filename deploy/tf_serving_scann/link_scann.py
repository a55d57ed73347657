"""Edits the sources of TensorFlow Serving and ScaNN so that the server holds ScaNN's ops.

TensorFlow Serving loads no ops at run time; they must be linked in. The edits are those of
google-research/scann/tf_serving/patches, by text and not by line, so that they fit other versions
of both; where a text is missing, nothing is built.

Usage: python link_scann.py SERVING_SOURCES SCANN_SOURCES
"""

import re
import sys
from pathlib import Path

OPS = '"@org_tensorflow_text//tensorflow_text:ops_lib",'
SCANN_OPS = '"@com_google_scann//scann/scann_ops/cc:scann_ops_static",'
WORKSPACE = '    """All TensorFlow Serving external dependencies."""\n'
TENSORFLOW = '"@org_tensorflow//tensorflow/core:tensorflow_opensource"'
STATIC_LIBRARY = """
cc_library(
    name = "scann_ops_static",
    deps = [
        ":scann_ops",
        ":scann_ops_kernels",
    ],
    alwayslink = 1,
)
"""


def link(serving: Path, scann: Path) -> None:
    """Makes the edits.

    Args:
        serving: Sources of TensorFlow Serving.
        scann: Sources of ScaNN: google-research's folder of that name.
    """
    replace(serving / "tensorflow_serving/model_servers/BUILD", OPS, f"{OPS}\n    {SCANN_OPS}")
    repository = f'    native.local_repository(name = "com_google_scann", path = "{scann}")\n'
    replace(serving / "tensorflow_serving/workspace.bzl", WORKSPACE, WORKSPACE + repository)
    ops = scann / "scann/scann_ops/cc/BUILD.bazel"
    text = without_python(ops.read_text(encoding="utf-8"))
    ops.write_text(text + STATIC_LIBRARY, encoding="utf-8")
    # The server is TensorFlow itself, where the Python package is linked against TensorFlow's.
    files = [file for file in scann.rglob("BUILD.bazel") if "local_config_tf" in file.read_text()]
    if not files:
        sys.exit(f"no BUILD.bazel below {scann} names @local_config_tf")
    for file in files:
        library = '"@local_config_tf//:libtensorflow_framework"'
        text = file.read_text(encoding="utf-8").replace(library, TENSORFLOW)
        text = re.sub(r'\n *"@local_config_tf//:tf_header_lib",', "", text)
        if "local_config_tf" in text:
            sys.exit(f"{file} names @local_config_tf in a way that is not known")
        file.write_text(text, encoding="utf-8")


def replace(file: Path, old: str, new: str) -> None:
    """Replaces a text that must be there once."""
    text = file.read_text(encoding="utf-8")
    if text.count(old) != 1:
        sys.exit(f"{file}: found {text.count(old)} times, must be once: {old.strip()}")
    file.write_text(text.replace(old, new), encoding="utf-8")


def without_python(text: str) -> str:
    """Returns a BUILD file without its Python extension, which needs a repository of its own."""
    text = re.sub(r'load\("@pybind11_bazel//[^\n]*\n', "", text)
    return re.sub(r"\npybind_(?:library|extension)\(\n(?:    [^\n]*\n)*\)\n", "", text)


if __name__ == "__main__":
    link(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
