"""The tests that need the kfp SDK, in the environment that has it."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.pipeline.two_clubs import ROOT

pytestmark = pytest.mark.long
FILES = ("test_compile.py", "test_resources.py", "test_step.py", "test_submit.py")
# pytest is in the environment of this process alone; of what both have, the other's comes first.
_PYTEST = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def _python() -> Path:
    """Return the Python of `.venv-kubeflow` or of the environment KUBEFLOW_ENVIRONMENT."""
    environment = Path(os.environ.get("KUBEFLOW_ENVIRONMENT", ROOT / ".venv-kubeflow"))
    python = environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} does not exist: see docs/kubeflow.md")
    return python


def test_everything_that_needs_kfp_holds_and_nothing_is_skipped() -> None:
    files = [str(Path(__file__).with_name(file)) for file in FILES]
    done = subprocess.run(
        [str(_python()), "-c", _PYTEST, sysconfig.get_path("purelib"), "-rs", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout[-4000:]
