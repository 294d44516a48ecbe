"""The floors of the architecture hold, and help costs no torch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_floor_imports_one_above_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_help_comes_at_once_and_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['tunesmith', '--help']\n"
        "from tunesmith import cli\n"
        "try: cli.app()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    times = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, tunesmith; assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_most_runs_do_not_need_is_not_imported() -> None:
    code = "import sys, tunesmith.api; assert not {'peft', 'datasets', 'kornia', 'sentence_transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
