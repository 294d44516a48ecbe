"""The command line: parse, call api, print. Knows no torch; heavy imports wait until a command needs them."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tunesmith import __version__, methods
from tunesmith.errors import SettingsError, TunesmithError

BEGAN = time.perf_counter()

app = typer.Typer(
    name="tunesmith",
    help="Fine-tune a pre-trained model on a small labelled data set, and know what it is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

SettingsFile = Annotated[Path | None, typer.Argument(help="Settings file (YAML); flags and --set go over it.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="key=value, such as train.epochs=3; may be repeated.")]
Task = Annotated[str | None, typer.Option(help="What the model must do, such as text-classification.")]
Model = Annotated[str | None, typer.Option(help="Hub id, local folder, or builtin:minilm.")]
Data = Annotated[str | None, typer.Option(help="Training data: file, folder, or Hub id.")]
Input = Annotated[
    list[str] | None, typer.Option("--input", help="Column of the text or image; twice for a pair of texts.")
]
Target = Annotated[str | None, typer.Option(help="Column of the label or score.")]
Method = Annotated[str | None, typer.Option(help=f"How the weights change: {' or '.join(methods.TABLE)}.")]
Budget = Annotated[str | None, typer.Option(help="Time that the whole run may take, such as 10min.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"tunesmith {__version__}")
        raise typer.Exit


@app.command()
def train(
    settings: SettingsFile = None,
    set_: Sets = None,
    task: Task = None,
    model: Model = None,
    data: Data = None,
    input_: Input = None,
    target: Target = None,
    method: Method = None,
    budget: Budget = None,
    seed: Seed = None,
    run: Annotated[Path | None, typer.Option(help="New folder for everything that the run leaves.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, which was stopped or killed.")] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Fine-tune: read the data, plan, train, measure, and write the report."""
    given = _gather(
        settings,
        set_,
        task=task,
        model=model,
        data=data,
        input=input_,
        target=target,
        method=method,
        budget=budget,
        seed=seed,
    )
    if resume and given:
        raise SettingsError("--resume goes on with the settings that the run was begun with.", "Leave the others away.")
    if resume and run:
        raise SettingsError(f"--resume goes on in {resume}, so --run has nothing to name.", "Leave --run away.")
    with _printer(quiet or json_) as listen:
        from tunesmith import api

        place = (
            api.resume(resume, listen=listen)
            if resume
            else api.finetune(_as_settings(given), run=run, listen=listen, began=BEGAN)
        )
    _show_run(place.folder, json_)


@app.command()
def demo(
    run: Annotated[Path | None, typer.Option(help="New folder for everything that the run leaves.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune the embedded model on the embedded data set, 8 kinds of customer messages, in a minute and a half."""
    tickets = Path(__file__).parent / "demo" / "tickets.csv"
    given = {
        "data": {"train": str(tickets), "input": "message", "target": "topic"},
        "model": "builtin:minilm",
        "budget": {"time": 90},
    }
    with _printer(quiet) as listen:
        from tunesmith import api

        place = api.finetune(_as_settings(given), run=run or _free("demo"), listen=listen)
    _show_run(place.folder, as_json=False)


@app.command()
def plan(
    settings: SettingsFile = None,
    set_: Sets = None,
    task: Task = None,
    model: Model = None,
    data: Data = None,
    input_: Input = None,
    target: Target = None,
    method: Method = None,
    budget: Budget = None,
    seed: Seed = None,
    json_: Json = False,
) -> None:
    """Show what train would do, and why. Trains nothing."""
    given = _gather(
        settings,
        set_,
        task=task,
        model=model,
        data=data,
        input=input_,
        target=target,
        method=method,
        budget=budget,
        seed=seed,
    )
    with _printer(json_) as listen:
        from tunesmith import api, console

        found = api.plan(_as_settings(given), listen=listen)
    print(json.dumps(found, indent=2)) if json_ else console.show_plan(found)


@app.command()
def check(
    data: Annotated[str | None, typer.Argument(help="File, folder, or Hub id.")] = None,
    set_: Sets = None,
    task: Task = None,
    input_: Input = None,
    target: Target = None,
    json_: Json = False,
) -> None:
    """Audit data before anything is spent: rows that cannot be used, repeats, labels, lengths."""
    given = _gather(None, set_, task=task, data=data, input=input_, target=target)
    from tunesmith import api, console

    found = api.check(_as_settings(given))
    print(json.dumps(found, indent=2, ensure_ascii=False)) if json_ else console.show_audit(found)


@app.command()
def predict(
    run: RunFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Texts, or image files and folders; a file with the input column, or a .txt with a text a line; or - for "
            "lines on standard input."
        ),
    ],
    json_: Json = False,
    output: Annotated[Path | None, typer.Option(help="Write all predictions here, as JSON lines.")] = None,
) -> None:
    """Predict with a finished run's model."""
    import warnings

    from tunesmith import console
    from tunesmith import predict as predictions
    from tunesmith.errors import CutWarning, GuessWarning

    if list(inputs) == ["-"] and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that does not decode is set aside, not the end of all
    with warnings.catch_warnings(record=True) as noted:
        for kind in (CutWarning, GuessWarning):
            warnings.simplefilter("always", kind)
        found = predictions.predict_inputs(run, inputs, sys.stdin)
    for note in noted:
        print(f"Note: {note.message}", file=sys.stderr)
    if unusable := sum(row["prediction"] is None for row in found):
        print(f"Note: {unusable:,} of {len(found):,} inputs cannot be used and have no prediction.", file=sys.stderr)
    if output:
        console.write_lines(found, output)
    elif json_:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
    else:
        console.show_predictions(found)


@app.command()
def evaluate(run: RunFolder, data: Annotated[str, typer.Argument(help="Labelled data.")], json_: Json = False) -> None:
    """Measure a finished run's model on other labelled data."""
    import warnings

    from tunesmith import api, console
    from tunesmith.errors import GuessWarning

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", GuessWarning)
        found = api.load(run).evaluate(data)
    for note in noted:
        print(f"Note: {note.message}", file=sys.stderr)
    print(json.dumps(found, indent=2, ensure_ascii=False)) if json_ else console.show_metrics(found)


@app.command()
def report(run: RunFolder) -> None:
    """Write report.html of a run again, from its report.json."""
    from tunesmith.report.page import write_page

    print(f"Report: {write_page(run)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more finished runs.")], json_: Json = False
) -> None:
    """Put finished runs side by side."""
    from tunesmith import api, console

    found = api.compare(runs)
    print(json.dumps(found, indent=2)) if json_ else console.show_comparison(found)


def main() -> NoReturn:
    """The entry point: a user's mistake becomes one sentence on standard error and exit code 2."""
    try:
        app(standalone_mode=True)
    except TunesmithError as error:
        print(f"tunesmith: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("tunesmith: stopped.", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _gather(file: Path | None, assignments: list[str] | None, **flags: Any) -> dict[str, Any]:
    """The settings file, then the flags, then --set."""
    from tunesmith import settings_file

    values = settings_file.read_yaml(file) if file else {}
    places = {
        "data": "data.train",
        "input": "data.input",
        "target": "data.target",
        "task": "task.name",
        "method": "method.name",
    }
    for flag, value in flags.items():
        if value is None or value == []:
            continue
        plain = value[0] if isinstance(value, list) and len(value) == 1 else value
        values = settings_file.put(values, places.get(flag, flag), plain)
    return settings_file.override(values, assignments or [])


def _as_settings(given: dict[str, Any]) -> Any:
    from tunesmith import settings

    return settings.parse(given)


def _free(stem: str) -> Path:
    from tunesmith.run import free_folder

    return free_folder(Path("runs"), stem)


def _printer(quiet: bool) -> Any:
    from tunesmith import console

    return console.progress(quiet)


def _show_run(folder: Path, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # torchrun's other processes: the first one measures and prints
        return
    from tunesmith import console

    console.show_run(folder, as_json)


if __name__ == "__main__":
    main()
