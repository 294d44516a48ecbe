"""Using a finished run: predictions for new inputs, and its figures on other labelled data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesmith import run as runs
from tunesmith.contracts import Model, Task
from tunesmith.data import load as data
from tunesmith.data.columns import Columns
from tunesmith.data.readers import TABLE
from tunesmith.errors import CutWarning, DataError, RunError
from tunesmith.evaluate.measure import Protocol, Reading, measure
from tunesmith.models.forward import logits
from tunesmith.models.reload import reload
from tunesmith.prepare import make
from tunesmith.settings import Named, Settings, parse, read_yaml
from tunesmith.train import processes

FILES = tuple(kind for kind in TABLE if kind.startswith("."))


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
        self.task: Task = make("task", Named(**notes["task"]))
        self.task.adopt(notes["problem"])
        self.labels: tuple[str, ...] = tuple(notes["labels"])
        self.problem: str = notes["problem"]
        self.inputs: tuple[str, ...] = tuple(notes["inputs"])
        self.targets: tuple[str, ...] = tuple(notes["targets"])
        self.precision: str = notes["precision"]
        self.temperature: float | None = notes["temperature"]
        self.model: Model = reload(place.model, remote_code=self.settings.trust_remote_code)
        self.model.module.to(processes.state().device)

    def predict(self, inputs: Sequence[str] | Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """A prediction for each input: id (its position), prediction, and calibrated scores where there are classes.

        Args:
            inputs: texts, or pairs of texts where the model was trained on pairs.

        Raises:
            DataError: an input is not text, or not a pair where pairs are needed.

        Warns:
            CutWarning: inputs are longer than the model takes, and were cut.
        """
        return self.predict_rows(_table(inputs, len(self.inputs))).to_pylist()  # type: ignore[no-any-return]

    def predict_rows(self, rows: pa.Table) -> pa.Table:
        """The same for a table with the columns id, input and, for pairs, pair."""
        if not rows.num_rows:
            raise DataError("There is nothing to predict: no usable input was given.")
        examples = self.task.encode(rows, self.model)
        cut = self.task.truncation(examples, self.model)
        if cut["rows_cut"]:
            warnings.warn(
                f"{cut['rows_cut']:,} of {rows.num_rows:,} inputs are longer than {cut['limit']:,} tokens and were cut "
                f"at the end: {cut['share_of_tokens']:.1%} of all tokens.",
                CutWarning,
                stacklevel=2,
            )
        found = logits(self.task, self.model, examples, self.precision)
        return self.task.predictions(rows, found, self.labels, self.temperature)

    def evaluate(self, source: str) -> dict[str, Any]:
        """The figures on other labelled data, with intervals; kept under RUN/evaluations/ too.

        Raises:
            DataError: the columns that the run was trained on are not there, or nothing is usable.
        """
        wanted = self.settings
        with runs.scratch() as cache:
            columns = Columns(self.inputs, self.targets, None, wanted.data.group, (), ())
            read = data.load_labelled(source, wanted.data, columns, self.labels, self.problem, cache)
            examples = self.task.encode(read.rows, self.model)
            found = logits(self.task, self.model, examples, self.precision)
            how = Protocol(self.task, self.labels, wanted.evaluate, wanted.seed)
            sections = measure(how, Reading(read.rows, examples, found), self.temperature)
        result = {
            "data": source,
            "rows": read.rows.num_rows,
            "rejected": len(read.rejected),
            "truncation": self.task.truncation(examples, self.model),
            **sections,
        }
        name = "-".join(part for part in Path(source).with_suffix("").parts if part.strip("./\\"))
        runs.write_json(self.run / "evaluations" / f"{name}.json", result)
        return result


def load(run: str | Path) -> Predictor:
    """Open a finished run for predictions: `tunesmith.load("runs/tickets-full").predict(["where is my parcel"])`."""
    return Predictor(Path(run))


def predict_inputs(run: str | Path, inputs: Sequence[str], lines: Iterable[str]) -> list[dict[str, Any]]:
    """What the command line predicts: texts as they are, a data file, or `lines` where the input is "-".

    A row of a file, or a line, that cannot be used stands in its place with no prediction and the reason.

    Raises:
        DataError: nothing usable, or a file that lacks the input column.
    """
    predictor = load(run)
    if list(inputs) == ["-"]:
        return _predict_lines(predictor, [line.rstrip("\n") for line in lines])
    if len(inputs) == 1 and (Path(inputs[0]).suffix.lower() in FILES or os.path.isdir(inputs[0])):
        with runs.scratch() as cache:
            read = data.read_inputs(inputs[0], predictor.settings.data, predictor.inputs, cache)
            found = predictor.predict_rows(read.rows).to_pylist()
            placed = list(zip(read.rows.column("line").to_pylist(), found, strict=True))
            placed += [(row.line, _without(f"row:{row.line}", row.reason)) for row in read.rejected]
            return [row for _, row in sorted(placed, key=lambda pair: pair[0])]
    if len(predictor.inputs) == 2:
        if len(inputs) != 2:
            raise DataError(
                f"The model reads pairs of texts, but {len(inputs)} were given.", "Give two texts, or a file."
            )
        return predictor.predict([(inputs[0], inputs[1])])
    return predictor.predict(list(inputs))


def _predict_lines(predictor: Predictor, lines: Sequence[str]) -> list[dict[str, Any]]:
    """One entry a line; its id is the line's position, from 0."""
    if len(predictor.inputs) == 2:
        raise DataError("The model reads pairs of texts, which lines cannot hold.", "Give a file with both columns.")
    kept = [number for number, line in enumerate(lines) if line.strip()]
    if not kept:
        raise DataError("There is nothing to predict: every line is empty.")
    found = {
        number: row | {"id": str(number)}
        for number, row in zip(kept, predictor.predict([lines[number] for number in kept]), strict=True)
    }
    return [found.get(number) or _without(str(number), "empty text") for number in range(len(lines))]


def _without(name: str, reason: str) -> dict[str, Any]:
    return {"id": name, "prediction": None, "reason": reason}


def _table(inputs: Sequence[Any], width: int) -> pa.Table:
    if isinstance(inputs, str):
        raise DataError("One text was given where a list of texts is needed.", "Put it in a list.")
    names = ["input", "pair"][:width]
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in inputs]
    for number, row in enumerate(rows):
        if len(row) != width or not all(isinstance(text, str) and text.strip() for text in row):
            wanted = "a text that is not empty" if width == 1 else "a pair of texts that are not empty"
            raise DataError(f"Input {number + 1} is {inputs[number]!r}, but {wanted} is needed.")
    columns = {name: [row[index] for row in rows] for index, name in enumerate(names)}
    return pa.table({"id": [str(number) for number in range(len(rows))], **columns})
