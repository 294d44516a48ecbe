"""The model card: README.md of the saved model, with the block of metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunesmith.report.format import bounds, metric_name, value
from tunesmith.report.verdict import baseline, confidence, lengths, verdict

LABELS_SHOWN = 50
HUB = {
    "image-similarity": "image-feature-extraction",
    "text-similarity": "sentence-similarity",
    "causal-lm": "text-generation",
    "preference": "text-generation",
    "masked-lm": "fill-mask",
}
"""What the Hub calls tasks of other names."""


def model_card(report: Mapping[str, Any], loading_code: str) -> str:
    """The card in Markdown.

    Args:
        report: the content of report.json.
        loading_code: the lines of Python that open the model without Tunesmith.
    """
    metadata = yaml.safe_dump(_metadata(report), sort_keys=False, allow_unicode=True).strip()
    lines = [
        *("---", metadata, "---", ""),
        *(f"# {report['model']['name']}, {_made(report)} for {report['task']}", "", *verdict(report), ""),
        *("## Use", "", "```python", loading_code, "```", ""),
        *_calibrated(report),
        *_results(report),
        *_data(report),
        *("## Limits", ""),
        "The figures hold for rows like those of the test split. On other kinds of input the model has not been "
        "measured. " + _cutting(report),
        *[f"- {warning}" for warning in report.get("warnings", [])],
        "",
        f"Made with Tunesmith {report['tunesmith_version']}, method {report['method']}, seed {report['seed']}.",
        "",
    ]
    return "\n".join(lines)


def _made(report: Mapping[str, Any]) -> str:
    return "fine-tuned" if report["model"]["pretrained"] else "trained from fresh weights"


def _calibrated(report: Mapping[str, Any]) -> list[str]:
    """What makes the probabilities those of the report; nothing where they are so already."""
    temperature = report.get("calibration", {}).get("temperature", 1)
    if temperature == 1:
        return []
    return [f"For calibrated probabilities divide the logits by {temperature:.3f}, as `tunesmith predict` does.", ""]


def _cutting(report: Mapping[str, Any]) -> str:
    """What becomes of long inputs, where inputs have a length."""
    if "truncation" not in report:
        return ""
    found = report["truncation"]["train"]
    limit = found.get("prompt_tokens", found["limit"])
    return f"The code above cuts inputs longer than {limit:,} tokens. " + " ".join(lengths(report))


def _results(report: Mapping[str, Any]) -> list[str]:
    metric = report["primary_metric"]
    rows = [
        f"| {metric_name(name)} | {value(name, one['value'])} | {bounds(name, one['low'], one['high'])} |"
        for name, one in report["metrics"]["test"].items()
    ]
    held = [
        f"| {baseline(report, name)} | {value(metric, values[metric]['value'])} |"
        for name, values in report.get("baselines", {}).items()
        if metric in values
    ]
    return [
        *("## Results on the test split", ""),
        *(f"| Metric | Value | {confidence(report)} interval |", "| --- | --- | --- |", *rows, ""),
        *(f"For comparison, {metric_name(metric)} of:", ""),
        *("| Baseline | Value |", "| --- | --- |", *held, ""),
    ]


def _data(report: Mapping[str, Any]) -> list[str]:
    data, labels = report["data"], report.get("labels", [])
    shown = ", ".join(labels[:LABELS_SHOWN]) + (" …" if len(labels) > LABELS_SHOWN else "")
    return [
        *("## Data", ""),
        f"{data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test rows; "
        f"{data['rejected']:,} rows could not be used."
        f"{' At the end the rows of validation trained too.' if 'refit' in report else ''}",
        *([f"Labels: {shown}."] if labels else []),
        "",
    ]


def _metadata(report: Mapping[str, Any]) -> dict[str, Any]:
    metric = report["primary_metric"]
    name = report["model"]["name"]
    found: dict[str, Any] = {
        "library_name": "transformers"
        if report["model"]["loader"] in ("pipeline", "auto-model")
        else report["model"]["loader"],
        "pipeline_tag": HUB.get(report["task"], report["task"]),
        "tags": ["tunesmith", report["task"], report["method"]],
        "metrics": [metric],
    }
    pretrained = report["model"]["pretrained"]
    if pretrained and "/" in name and not Path(name).exists():  # a Hub id; a local folder means nothing elsewhere
        found["base_model"] = name
    found["model-index"] = [
        {
            "name": f"{Path(name).name}-{report['method']}",
            "results": [
                {
                    "task": {"type": report["task"]},
                    "dataset": {"name": "test split", "type": "custom"},
                    "metrics": [
                        {"type": one, "value": round(found_value["value"], 4)}
                        for one, found_value in report["metrics"]["test"].items()
                    ],
                }
            ],
        }
    ]
    return found
