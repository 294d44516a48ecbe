"""Commands as they are typed, one after the other; in one process, as most of each one's time would be that of starting."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_EACH = """
import io, json, sys
from contextlib import redirect_stdout
from tunesmith import cli
for command in json.load(sys.stdin):
    sys.argv, said = command, io.StringIO()
    try:
        with redirect_stdout(said):
            cli.main()
    except SystemExit as end:
        if end.code or not said.getvalue().strip():
            sys.exit(f"{command}: {end.code}\\n{said.getvalue()[-2000:]}")
"""


def run(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Insist that each of `commands` (of tunesmith) ends well, in `folder`, and prints something."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", _EACH],
        input=json.dumps([list(one) for one in commands]),
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{'; '.join(map(shlex.join, commands))}\n{done.stderr[-3000:]}"
