"""Using a finished run: predictions for new inputs, and its figures on other labelled data."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith import methods, tasks
from tunesmith import run as runs
from tunesmith.contracts import Method, Model, Task
from tunesmith.data import load as data
from tunesmith.data.canonical import Canonical
from tunesmith.data.cells import Place, Unusable
from tunesmith.data.columns import Columns
from tunesmith.data.cut import where
from tunesmith.data.readers import PLAIN, TABLES, open_source, plain_text, reading
from tunesmith.data.rejected import Rejected
from tunesmith.data.targets import Settled
from tunesmith.errors import CutWarning, DataError, GuessWarning, RunError
from tunesmith.evaluate.measure import Protocol, Reading, measure
from tunesmith.models.forward import answers
from tunesmith.registry import make
from tunesmith.settings import Named, Settings, parse
from tunesmith.settings_file import read_yaml
from tunesmith.train import processes

SEVERAL, NUMBERS = {2: "pair", 3: "triplet"}, {2: "two", 3: "three"}
NOWHERE = Path()
"""Where what the command line gives is kept: it names files, and holds none."""


class Predictor:
    """A finished run's model, ready for new inputs."""

    def __init__(self, run: Path) -> None:
        """Open the model of the run folder `run`.

        Raises:
            RunError: no such run, or one that is not finished.
        """
        self.run = run
        place = runs.open_run(run)
        if not (place.model / "tunesmith.json").is_file():
            raise RunError(f"The run {run} has no finished model.", f"Go on with it: tunesmith train --resume {run}")
        notes = runs.read_json(place.model / "tunesmith.json")
        self.settings: Settings = parse(read_yaml(place.settings), str(place.settings))
        self.task: Task = make("task", tasks.TABLE, Named(**notes["task"]))
        self.task.adopt(notes["problem"])
        self.labels: tuple[str, ...] = tuple(notes["labels"])
        self.settled = Settled(notes["problem"], self.labels, notes["coding"])
        self.inputs: tuple[str, ...] = tuple(notes["inputs"])
        self.targets: tuple[str, ...] = tuple(notes["targets"])
        self.precision: str = notes["precision"]
        self.fitted: float | None = notes.get("fitted", notes.get("temperature"))
        self.task.keep(self.fitted)
        self.model: Model = self.task.reopen(place.model, remote_code=self.settings.trust_remote_code)
        self.model.module.to(processes.state().device)

    @property
    def least(self) -> int:
        """How many columns an input has that is given by itself."""
        return max(1, len(self.inputs) - self.task.cells.optional)

    def predict(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """A prediction for each input: id (its position), prediction, and calibrated scores where there are classes.

        Args:
            inputs: texts, or pairs of texts where the model was trained on pairs, or lists of words where it tells words
                apart; or images: paths, files' contents, arrays (height, width) or (height, width, 3) of bytes, Pillow's.

        Raises:
            DataError: an input is not text, not a pair where pairs are needed, or no image that can be read.

        Warns:
            CutWarning: inputs are longer than the model takes, and were cut; or the chat template refuses some of them.
        """
        with runs.scratch() as folder:
            read = self.read(inputs, folder)
            if read.rejected:
                bad = read.rejected[0]
                told = f" is {inputs[bad.line]!r}, which" if isinstance(inputs[bad.line], str | tuple | list) else ""
                raise DataError(f"Input {bad.line + 1}{told} cannot be used: {bad.reason}.")
            return self.predict_rows(read.rows).to_pylist()  # type: ignore[no-any-return]

    def read(self, inputs: Sequence[Any], kept: Path) -> Canonical:
        """Inputs as rows, numbered from 0; those that cannot be used are set aside.

        Args:
            kept: a folder for what is given as content and is needed as a file; it must stay until the rows are predicted.
        """
        if isinstance(inputs, str):
            raise DataError("One text was given where a list of texts is needed.", "Put it in a list.")
        if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "buif" and inputs.ndim < 4:
            raise DataError("One array was given where a list of images is needed.", "Put it in a list.")
        cells, width, least = self.task.cells, len(self.inputs), self.least
        place = Place(Path(), kept, self.settings.data)
        rows: list[tuple[Any, ...]] = []
        rejected: list[Rejected] = []
        for number, given in enumerate(inputs):
            several = isinstance(given, tuple | list) and not (cells.listed and width == 1)
            parts = given if several else (given,)
            parts = (*parts, *[None] * (width - len(parts))) if least <= len(parts) else parts
            if len(parts) != width:
                what = f"a {SEVERAL[width]} of texts" if width > 1 else f"one {cells.noun}"
                raise DataError(f"Input {number + 1} is {given!r}, but {what} is needed.")
            found = cells.read(parts, str(number), place)
            if isinstance(found, Unusable):
                rejected.append(Rejected("", number, found.reason, found.shown))
            else:
                name = cells.named(str(number), parts[0]) if isinstance(parts[0], str) else str(number)
                rows.append((name, number, *found))
        schema = pa.schema([("id", pa.string()), ("line", pa.int64()), *cells.fields(width)])
        columns = zip(*rows, strict=True) if rows else [()] * len(schema)
        return Canonical(
            pa.table(
                [pa.array(list(column), kind) for column, kind in zip(columns, schema.types, strict=True)], schema
            ),
            rejected,
        )

    def predict_rows(self, rows: pa.Table) -> pa.Table:
        """The same for a table with the columns id and those of the task's cells."""
        if not rows.num_rows:
            raise DataError("There is nothing to predict: no usable input was given.")
        step = self.task.cells.together
        return pa.concat_tables([self._predicted(rows.slice(at, step)) for at in range(0, rows.num_rows, step)])

    def _predicted(self, rows: pa.Table) -> pa.Table:
        """Predictions for as many rows as fit into memory together."""
        examples = self.task.encode(rows, self.model)
        cut = self.task.truncation(examples, self.model)
        if cut and cut["rows_cut"]:
            warnings.warn(
                f"{cut['rows_cut']:,} of {rows.num_rows:,} inputs are longer than {cut['limit']:,} tokens and were cut "
                f"at the {where(cut)}: {100 * cut['share_of_tokens']:.1f} % of all tokens.",
                CutWarning,
                stacklevel=3,
            )
        if cut and cut.get("rows_refused"):
            warnings.warn(
                f"{cut['rows_refused']:,} of {rows.num_rows:,} inputs get no answer, as the chat template refuses them. "
                f"{cut['refused']}",
                CutWarning,
                stacklevel=3,
            )
        found = answers(self.task, self.model, examples, self.precision, every=True)
        return self.task.predictions(rows, found, self.labels, self.fitted)

    def evaluate(self, source: str) -> dict[str, Any]:
        """The figures on other labelled data, with intervals; kept under RUN/evaluations/ too.

        Raises:
            DataError: the columns that the run was trained on are not there, or nothing is usable.
        """
        wanted = self.settings
        with runs.scratch() as cache:
            columns = Columns(self.inputs, self.targets, None, wanted.data.group, (), ())
            read = self.task.load_labelled(source, wanted.data, columns, self.settled, cache)
            examples = self.task.encode(read.rows, self.model)
            if self.task.relative:
                examples = self.task.anchored(examples, self._original(), self.precision)
            found = answers(self.task, self.model, examples, self.precision)
            how = Protocol(self.task, self.labels, wanted.evaluate, wanted.seed)
            sections = measure(how, Reading(read.rows, examples, found), self.fitted)
        cut = self.task.truncation(examples, self.model)
        result = {
            "data": source,
            "rows": read.rows.num_rows,
            "rejected": dict(Counter(row.reason for row in read.rejected).most_common()),
            **({"truncation": cut} if cut else {}),
            **sections,
        }
        runs.write_json(self.run / "evaluations" / f"{_file_name(source)}.json", result)
        return result

    def _original(self) -> Model:
        """The network from before training, as the run loaded it.

        Raises:
            ModelError: it is no longer where it was.
        """
        wanted = self.settings
        method: Method = make("method", methods.TABLE, wanted.method)
        model = self.task.load_model(
            wanted.model,
            self.labels,
            seed=wanted.seed,
            loading=method.loading,
            remote_code=wanted.trust_remote_code,
        )
        model.module.to(processes.state().device)
        return model


def _file_name(source: str) -> str:
    """What the figures on `source` are filed under: its path, with dashes."""
    place = Path(source)
    place = place if place.name else place.resolve()  # the folder that one is in has a name too
    stem = place.with_suffix("") if place.name else place
    return "-".join(part for part in stem.parts if part.strip("./\\")) or "data"


def load(run: str | Path) -> Predictor:
    """Open a finished run for predictions: `tunesmith.load("runs/tickets-full").predict(["where is my parcel"])`."""
    return Predictor(Path(run))


def predict_inputs(run: str | Path, inputs: Sequence[str], lines: Iterable[str]) -> list[dict[str, Any]]:
    """What the command line predicts: inputs as they are, images of a folder, a data file, the lines of a file of text, or
    `lines` where the input is "-".

    An input, a row of a file, or a line, that cannot be used stands in its place with no prediction and the reason.

    Raises:
        DataError: nothing usable, a file that lacks the input column, or one that cannot be read as what is asked for.

    Warns:
        GuessWarning: the lines of a file are the inputs, or its columns are called otherwise.
    """
    predictor = load(run)
    if list(inputs) == ["-"]:
        return _predict_lines(predictor, [line.rstrip("\n") for line in lines])
    given = predictor.task.cells.expanded(inputs)
    reads_text = predictor.model.modality == "text"
    if reads_text:
        _insist_one_file(inputs)
    plain = reads_text and len(inputs) == 1 and _is_plain(inputs[0])
    if plain and not _holds_columns(predictor, inputs[0]):
        return _predict_lines(predictor, _lines_of(inputs[0], predictor.settings.data.encoding))
    if plain or (len(inputs) == 1 and _is_table(inputs[0], given)):
        with runs.scratch() as cache:
            read = data.read_inputs(inputs[0], predictor.settings.data, predictor.inputs, cache, predictor.task.cells)
            return _in_place(predictor, read, lambda line: f"row:{line}")
    if (count := len(predictor.inputs)) > 1:
        if not predictor.least <= len(inputs) <= count:
            told = "1 was" if len(inputs) == 1 else f"{len(inputs)} were"
            raise DataError(
                f"The model reads {SEVERAL[count]}s of texts, but {told} given.",
                f"Give {'one or ' if predictor.least == 1 else ''}{NUMBERS[count]} texts, or a file.",
            )
        return predictor.predict([tuple(inputs)])
    if not given:
        raise DataError(f"There is no image in {', '.join(inputs)}.", "Give image files, or a folder that holds some.")
    read = predictor.read(given, NOWHERE)
    return _in_place(predictor, read, lambda line: predictor.task.cells.named(str(line), given[line]))


def _is_table(where: str, given: Sequence[str]) -> bool:
    """Whether an input is the name of a data file or folder; of a folder, only where it holds no input by itself."""
    return Path(where).suffix.lower() in TABLES or (os.path.isdir(where) and list(given) in ([], [where]))


def _insist_one_file(inputs: Sequence[str]) -> None:
    """Raise DataError where the name of a file would be taken for a text: among several inputs, or of a kind that is not
    read."""
    for name in inputs:
        kind = Path(name).suffix.lower()
        if not kind or not os.path.isfile(name):
            continue
        if len(inputs) > 1:
            raise DataError(f"{name} is a file, but {len(inputs)} inputs were given.", "Give the file alone.")
        if kind not in (*TABLES, PLAIN):
            raise DataError(
                f"{name} is a file of a kind that is not read ({kind}).",
                f"Known: {', '.join((*TABLES, PLAIN))}; its lines are read by: tunesmith predict RUN - < {name}",
            )


def _is_plain(where: str) -> bool:
    """Whether an input is the name of a file of text, there or not; a text may end like one, but has blanks."""
    return Path(where).suffix.lower() == PLAIN and (os.path.isfile(where) or not any(map(str.isspace, where)))


def _holds_columns(predictor: Predictor, where: str) -> bool:
    """Whether a file of text is read as a table by this task.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if not os.path.isfile(where):
        raise DataError(f"There is no file {where}.", "Check the path; it is taken from the folder you are in.")
    with reading(where):
        (source,) = open_source(where, predictor.settings.data.encoding, predictor.task.cells.readers).values()
    return source.columns != plain_text.COLUMNS


def _lines_of(where: str, encoding: str) -> list[str]:
    """The lines of a file of text, each an input; one that does not decode has a mark in it.

    Warns:
        GuessWarning: always, as a name could be a text too.
    """
    with reading(where):
        found = plain_text.lines(where, encoding)
    warnings.warn(f"{where} is read line by line: each line is one text.", GuessWarning, stacklevel=3)
    return found


def _in_place(predictor: Predictor, read: Canonical, name: Callable[[int], str]) -> list[dict[str, Any]]:
    """A prediction for every row that can be used, and the reason for every other, in the order of the rows."""
    found = predictor.predict_rows(read.rows).to_pylist()
    placed = list(zip(read.rows.column("line").to_pylist(), found, strict=True))
    placed += [(row.line, _without(name(row.line), row.reason)) for row in read.rejected]
    return [row for _, row in sorted(placed, key=lambda pair: pair[0])]


def _predict_lines(predictor: Predictor, lines: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a line; of texts, its id is the line's position, from 0."""
    if (count := len(predictor.inputs)) > 1 and predictor.least > 1:
        raise DataError(
            f"The model reads {SEVERAL[count]}s of texts, which lines cannot hold.", "Give a file with all columns."
        )
    if not any(line.strip() for line in lines):
        raise DataError("There is nothing to predict: every line is empty.")
    return _in_place(predictor, predictor.read(lines, NOWHERE), str)


def _without(name: str, reason: str) -> dict[str, Any]:
    return {"id": name, "prediction": None, "reason": reason}
