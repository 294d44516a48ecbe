"""Prints files and functions that are longer than the style asks for; for people to look at, never an error."""

from __future__ import annotations

import ast
from pathlib import Path

LONGEST_FILE, LONGEST_FUNCTION = 400, 60

for path in sorted(Path("src").rglob("*.py")):
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        print(f"{path}: {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION:
            print(f"{path}:{node.lineno}: {node.name} has {(node.end_lineno or 0) - node.lineno + 1} lines")
