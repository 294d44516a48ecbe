"""Lists in cells of text: as JSON writes them, or as Python does, which is what pandas leaves in a CSV."""

from __future__ import annotations

import ast
import json
import re
import tokenize
import warnings
from io import StringIO
from itertools import pairwise
from typing import Any

_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")


def parts_in(text: str) -> Any:
    """What a list or a mapping in `text` holds; None where it is neither, or not a whole one."""
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
        found = _by_python(text)
    return found if isinstance(found, list | dict) else None


def _by_python(text: str) -> Any:
    """Its literal, in which array([…]) is its list; None where there is none, and for arrays as NumPy prints them: ['a' 'b'],
    without commas, would be one string."""
    try:
        if _SIDE_BY_SIDE.search(text) and _joins_strings(text):
            return None
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python would rather not see
            return ast.literal_eval(_Listed().visit(ast.parse(text, mode="eval")))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None


class _Listed(ast.NodeTransformer):
    """Lists and numbers in place of NumPy's, as it writes them in a mapping: array(['a'], dtype=object), np.int64(3)."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        written = ast.unparse(node.func)
        known = written == "array" or written.startswith("np.")
        return node.args[0] if known and len(node.args) == 1 else node


def _joins_strings(text: str) -> bool:
    kinds = [token.type for token in tokenize.generate_tokens(StringIO(text).readline) if token.type != tokenize.NL]
    return any(one == other == tokenize.STRING for one, other in pairwise(kinds))
