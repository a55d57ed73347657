"""Build and run images as root with buildah, which needs no daemon and no registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.pipeline.two_clubs import ROOT

PROGRAMS = ("buildah", "debootstrap")
BASE = "docker.io/library/python:3.10-slim-bookworm"  # of every Dockerfile
# Libraries that Python's own modules load.
_PACKAGES = (
    "ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,"
    "libuuid1,zlib1g"
)
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIP_SETTING = re.compile(
    r"^(?:global|:env:)\.((?:extra-)?index-url|trusted-host|cert)='(.*)'$", re.MULTILINE
)


class Images:
    """Images in a folder of their own.

    Chroot isolation needs neither control groups nor a network of its own. If the file system does
    not support overlays, set STORAGE_DRIVER=vfs, which copies each layer.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        state = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        self._buildah = ["buildah", "--storage-driver", driver, *state]

    def make_base(self) -> None:
        """Make the base image from Debian's packages and the Python that runs this process."""
        if BASE in self._do("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        prefix = Path(sys.base_prefix)
        assert prefix != Path("/usr"), "Python must be in a folder of its own, as uv installs it"
        container = self._do("from", "scratch")
        root = Path(self._do("mount", container))
        suite = BASE.rpartition("-")[2]
        _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)])
        unused = shutil.ignore_patterns("test", "site-packages", "__pycache__", "*.a")
        local = root / "usr" / "local"
        shutil.copytree(prefix, local, symlinks=True, ignore=unused, dirs_exist_ok=True)
        (local / "lib/python3.10/site-packages").mkdir(exist_ok=True)
        _run(["chroot", str(root), "ldconfig"])
        self._do("config", "--env", f"PATH={_PATH}", container)
        self._do("umount", container)
        self._do("commit", "--rm", container, BASE)

    def build(self, name: str) -> None:
        """Build the image of a Dockerfile, with the package index that pip uses here."""
        pip = self._folder / "pip.conf"
        listed = _run([sys.executable, "-m", "pip", "config", "list"])
        settings = dict(reversed(_PIP_SETTING.findall(listed)))  # the environment comes first
        lines = [f"{key} = {value}\n" for key, value in settings.items()]
        pip.write_text("".join(["[global]\n", *lines]))
        file = f"deploy/{name}.Dockerfile"
        volumes = (f"--volume={pip}:/etc/pip.conf:ro", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro")
        sources = ("--file", file, "--ignorefile", f"{file}.dockerignore", ".")
        how = ("--isolation", "chroot", "--pull=never")
        self._do("build", *how, *volumes, "--tag", name, *sources)

    def size(self, name: str) -> str:
        return self._do("images", "--format", "{{.Size}}", name)

    def remove(self) -> None:
        """Remove the folder with all containers and images."""
        self._do("rm", "--all")
        self._do("rmi", "--all", "--force")
        mounted = self._folder / "storage" / "overlay"
        if mounted.is_mount():  # by buildah, so that no other mount reaches it
            _run(["umount", str(mounted)])
        shutil.rmtree(self._folder)

    @contextmanager
    def container(self, name: str, *volumes: str) -> Iterator[list[str]]:
        """Create a container, and yield the command that runs a program in it."""
        container = self._do("from", "--pull=never", name)
        mounts = [f"--volume={volume}" for volume in volumes]
        try:
            yield [*self._buildah, "run", "--isolation", "chroot", *mounts, container, "--"]
        finally:
            self._do("rm", container)

    def config(self, name: str) -> dict[str, Any]:
        """Return the entrypoint, command and other settings of an image."""
        found: dict[str, Any] = json.loads(self._do("inspect", "--type", "image", name))
        return dict(found["OCIv1"]["config"])

    def _do(self, *arguments: str) -> str:
        return _run([*self._buildah, *arguments])


def _run(command: list[str]) -> str:
    """Run a command and return what it prints; if it fails, show the end of it."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()
