import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.main import app
from pipeline.config.reference import markdown

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def test_tables_of_settings_are_current() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert text.endswith(markdown()), "run `make docs`"
    assert "| None" not in text, "a setting has no description"


def commands(page: Path) -> Iterator[str]:
    """Yield the arguments of each `two-tower` command on a page, without comments and pipes."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
    for block in re.findall(r"```(?:console|bash)\n(.*?)```", text, flags=re.DOTALL):
        for line in map(str.strip, block.splitlines()):
            if found := re.search(
                r"^(?:\$ )?(?:sudo -H -u two-tower )?(?:\S*/)?two-tower ([a-z].*)", line
            ):
                yield re.split(r"\s#\s| \| | …|\)$", found[1])[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for text in commands(page):
        words = shlex.split(text)
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or not words or words[0].startswith("-"), text
        known = {option for parameter in command.params for option in parameter.opts}
        asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert asked <= {*known, "--help"}, f"{page.name}: two-tower {text}"


def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
