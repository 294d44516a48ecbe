"""The README's commands, chapter by chapter, as a reader would type them; and the reference that the code writes."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import typed
from tiny import write_answers, write_boxes, write_identities, write_image_model, write_images, write_masks, write_tags
from tunesmith.tasks import tiny_pairs, tiny_preferences
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.tasks.tiny_renderings import write_renderings

ROOT = Path(__file__).parents[2]
ROWS = 176
"""Of the demo's data: enough for every class, few enough to train in seconds; with 16 a class in training `auto` would
compare rows too, which takes minutes."""
FEWER = ["train.epochs=1"]


def blocks() -> list[tuple[str, str]]:
    """(language, content) of each block of the README in order; an indented block's language is empty."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$|((?:^    \S[^\n]*\n)+)", text, flags=re.MULTILINE | re.DOTALL)
    return [(language, fenced or indented) for language, fenced, indented in found]


def chapters() -> list[list[tuple[str, str]]]:
    """Blocks that need nothing of those before: one that begins with training a network, and what follows from it."""
    found: list[list[tuple[str, str]]] = [[]]
    for language, content in blocks():
        if not language and content.lstrip().startswith("tunesmith train"):
            found.append([])
        found[-1].append((language, content))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader has a file tickets.csv, a folder of photos, one of scans with masks, and an image network."""
    folder = tmp_path_factory.mktemp("reader")
    write_image_model(folder / "models" / "resnet", "resnet")
    photos = write_images(folder / "photos", 40)
    write_masks(folder / "scans", 30)
    write_boxes(folder / "cells", 30)
    write_identities(folder / "things", 12, 4)
    write_tags(folder / "notes.conll", 60)
    write_answers(folder / "policies.jsonl", 60)
    write_gpt2(folder / "models" / "gpt")
    write_prompts(folder / "prompts.jsonl")
    tiny_pairs.write_pairs(folder / "pairs.csv", 60)
    tiny_preferences.write_pairs(folder / "answers.jsonl", 60)
    write_renderings(folder / "abstracts.jsonl", 60)
    Image.open(next(photos.rglob("*.png"))).save(folder / "new.jpg")
    source = ROOT / "src" / "tunesmith" / "demo" / "tickets.csv"
    with open(source, newline="", encoding="utf-8") as handle:
        header, *rows = csv.reader(handle)
    with open(folder / "tickets.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows[:ROWS]])
    return folder


@pytest.mark.parametrize("chapter", range(len(chapters())))  # apart, so that several processes share them
def test_every_command_of_the_readme_works(chapter: int, folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran, waiting = 0, []
    for language, content in chapters()[chapter]:
        if language and waiting:
            typed.run(waiting, folder)
            waiting = []
        if language == "yaml":
            (folder / "settings.yaml").write_text(content, encoding="utf-8")
        elif language == "python":
            _run([sys.executable, "-c", content], folder, environment)
            ran += 1
        elif not language:
            for line in content.splitlines():
                command = shlex.split(line, comments=True)
                if command[0] != "tunesmith":
                    continue  # make is what runs these tests
                if command[1] == "train" and "--set" not in command:
                    command += ["--set", *FEWER]
                waiting.append(command)
                ran += 1
    if waiting:
        typed.run(waiting, folder)
    assert ran


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").iterdir()))
def test_an_example_can_be_followed_up_to_its_training(example: str, tmp_path: Path) -> None:
    """What its README says, in a copy; instead of training, the plan is made."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "src" / "tunesmith" / "demo", tmp_path / "src" / "tunesmith" / "demo")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    folder, planned = tmp_path, False
    text = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    for command in (shlex.split(line) for line in re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)):
        if command[0] == "cd":
            folder = tmp_path / command[1]
        elif command[:2] == ["tunesmith", "train"]:
            planned = True
            _run(["tunesmith", "plan", command[2]], folder, environment)
        elif Path(command[1]).name.startswith("make_"):
            _run([*command, *["--count", "60"] * ("--count" in command)], folder, environment)
        elif command[:2] == ["tunesmith", "check"]:
            _run(command, folder, environment)
    assert planned


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.strip()


def test_the_makefile_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_is_what_the_code_says() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == written["page"](), "run make reference"
    schema = json.loads((ROOT / "docs" / "settings.schema.json").read_text(encoding="utf-8"))
    assert schema == written["schema"](), "run make reference"
    rows = [line for line in written["page"]().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for line in rows:
        assert not line.endswith("|  |"), f"a setting without its meaning: {line}"
