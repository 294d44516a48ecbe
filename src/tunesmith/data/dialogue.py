"""Text of which some parts are learned: tokens, those that a language model is to tell, and where its last answer begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tunesmith.data.asked import NOTHING, Asked

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialogue(Asked):
    """Rows as a language model learns them, in one piece or several."""

    begins: npt.NDArray[np.int64]
    """(pieces,) the place at which the last answer begins; the length of the piece where none follows."""
    cut: npt.NDArray[np.int64]
    """(rows, 2) tokens that were cut from the start, and from the end."""
    references: Sequence[Sequence[str]] | None
    """(rows,) what could be written; None where nobody says."""
    plain: bool = False
    """Whether the network is asked for the token after the last one of each piece, and its logits are what is kept."""
    room: int = 0
    """Tokens of a sequence into which pieces are packed; 0 where each is a sequence of its own."""
    refused: Sequence[str] = ()
    """Why, of each row that the chat template refuses; such rows have no piece."""

    @property
    def left_out(self) -> int:
        """Rows of which nothing that is to be learned is within the limit."""
        return self.rows - len(np.unique(self.owner)) - len(self.refused)

    def piece_of(self, row: int) -> int | None:
        """The first piece of a row; None where it has none."""
        found = int(np.searchsorted(self.owner, row))
        return found if found < len(self.owner) and self.owner[found] == row else None

    def packed(self, room: int) -> Dialogue:
        """The same pieces, side by side in sequences of up to `room` tokens."""
        return replace(self, room=max(room, int(self.lengths.max(initial=1))))

    def laid_out(self, indices: Places, pad_id: int) -> tuple[Places, Places, Places]:
        """Packed ids and positions, each (sequences, longest); and (asked,) the places that are asked, counted through all.

        Positions begin anew with each piece; those that are asked stand in the order of `indices`.
        """
        lengths = self.lengths[indices]
        sequence, start = together(lengths, self.room)
        longest = int((start + lengths).max())
        piece, inside, source = self.laid(indices)
        place = sequence[piece] * longest + start[piece] + inside
        shape = (int(sequence.max()) + 1, longest)
        ids = np.full(shape, pad_id, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        ids.flat[place] = self.ids[source]
        positions.flat[place] = inside
        return ids, positions, place[self.wanted[source] != NOTHING]


def plain(ids: Sequence[Sequence[int]]) -> Dialogue:
    """Rows of tokens of which nothing is known to follow, for the logits after the last of each."""
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    flat = np.concatenate([np.asarray(one, dtype=np.int32) for one in ids])
    return Dialogue(
        ids=flat,
        kinds=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        owner=np.arange(len(ids)),
        targets=None,
        lost=np.zeros(len(ids), dtype=np.int64),
        wanted=np.full(len(flat), NOTHING, dtype=np.int32),
        scale=np.ones(len(ids), dtype=np.float32),
        begins=lengths,
        cut=np.zeros((len(ids), 2), dtype=np.int64),
        references=None,
        plain=True,
    )


def together(lengths: Places, room: int) -> tuple[Places, Places]:
    """Which sequence of `room` tokens each piece goes into, and where it begins there: the longest first, each into the first
    sequence that has room for it.

    Args:
        lengths: (pieces,) none above `room`.
    """
    sequence, start = np.zeros(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    filled: list[int] = []
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        found = next((number for number, used in enumerate(filled) if used + length <= room), len(filled))
        if found == len(filled):
            filled.append(0)
        sequence[piece], start[piece] = found, filled[found]
        filled[found] += length
    return sequence, start
