"""The errors a user may meet. Each says what happened, where, and what to do; none shows a traceback.

Knows nothing of the rest of the package. Raise one where the fact is known; only `cli` catches them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunesmithError(Exception):
    """A run could not go on for a reason that the user can mend.

    Args:
        what: one sentence: what happened and where (file, row, key), with the offending value.
        mend: what to do about it, one sentence; joined to the first.
    """

    exit_code = 2

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what} {mend}".strip())
        self.what = what
        self.mend = mend


class SettingsError(TunesmithError):
    """A key or a value of the settings is wrong."""


class DataError(TunesmithError):
    """The data cannot be used as they are."""


class ModelError(TunesmithError):
    """The pre-trained model cannot be loaded or does not fit the task."""


class RunError(TunesmithError):
    """The run folder cannot be read, written, or is in use by another process."""


class TrainingError(TunesmithError):
    """Training cannot go on: the loss is not finite, or memory has run out."""


class Interrupted(TunesmithError):
    """The user, or the system, asked the process to stop; the state was saved first."""

    exit_code = 130


class GuessWarning(UserWarning):
    """How a file is to be read was guessed, such as which of its columns stand in for those that were trained on."""


class CutWarning(UserWarning):
    """Of the inputs something was cut, or some were left out, before the model read them."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` that looks most like `word` (case and blanks ignored), or None when none comes near."""
    folded = {name.strip().casefold(): name for name in known}
    close = difflib.get_close_matches(word.strip().casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'label'?"`, or `"."` when nothing known looks like `word`."""
    close = nearest(word, known)
    return f"; did you mean {close!r}?" if close else "."
