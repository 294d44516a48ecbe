"""What the run is worth, in a few plain sentences: what was reached, what was gained, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.cut import where
from tunesmith.metrics import direction
from tunesmith.report import retained
from tunesmith.report.format import bounds, count, duration, gap, metric_name, rows, share, signed, size, value
from tunesmith.report.frontier import why

SHARES_SHOWN = 25
METHODS = {
    "full": "Full fine-tuning",
    "probe": "A probe on the frozen backbone",
    "partial": "Fine-tuning of the last blocks",
    "surgical": "Fine-tuning of the stages with the longest gradients",
    "gradual": "Gradual unfreezing",
    "contrastive": "Contrastive tuning",
    "lp-ft": "Probing, then full fine-tuning,",
    "bitfit": "Training the biases",
    "norm-only": "Training the normalisation layers",
    "lora": "LoRA",
    "dora": "DoRA",
    "rslora": "rsLoRA",
    "pissa": "PiSSA",
    "lora+": "LoRA+",
    "ia3": "(IA)³",
    "adalora": "AdaLoRA",
    "vera": "VeRA",
    "prompt": "Prompt tuning",
    "prefix": "Prefix tuning",
    "qlora": "QLoRA",
    "scratch": "Training from fresh weights",
}
MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "with a palette",
    "RGB": "in colour",
    "RGBA": "in colour with transparency",
    "CMYK": "in print colours",
    "I;16": "grey of 16 bits",
}
"""What Pillow's modes are called."""
BASELINES = {
    "majority": "always giving the commonest answer",
    "frequencies": "telling tokens by how often each is learned in train",
    "before": "the model as it came",
    "longer": "always preferring the longer answer",
    "lead": "giving the first words of the source",
    "probe": "a probe on the frozen backbone",
    "scratch": "the same network trained from scratch",
    "without_adapt": "the same training without the adaptation",
}


def verdict(report: Mapping[str, Any]) -> list[str]:
    """The sentences, most important first."""
    metric = report["primary_metric"]
    reached = report["metrics"]["test"][metric]
    method = METHODS.get(report["method"], f"The method {report['method']}")
    method = "The pre-trained network as it came" if report["method"] == "probe" and headless(report) else method
    sentences = [
        f"{method} reaches {value(metric, reached['value'])} {metric_name(metric)} on {measured(report):,} test rows "
        f"({confidence(report)} interval {bounds(metric, reached['low'], reached['high'])})"
        f"{', of which less is better' if direction.sign(metric) < 0 else ''}."
    ]
    sentences += [_compared(report, metric, entry) for entry in ordered(report)]
    better = [entry["against"] for entry in ordered(report) if _gained(metric, entry)[1] < 0]
    if better:
        other = baseline(report, better[0])
        sentences.append(f"{other[0].upper()}{other[1:]} is better: use that instead.")
    sentences += adapted(report)
    if chosen := why(report):
        sentences.append(chosen)
    sentences += retained.sentences(report)
    training = report["training"]
    sentences.append(
        f"Training took {duration(training['seconds'])} and at most {size(training['peak_memory_bytes'])} of memory; "
        f"{count(training['parameters_trainable'])} of {count(training['parameters_total'])} parameters were trained."
    )
    if again := report.get("refit"):
        sentences.append(
            f"Then all was trained once more on the {again['rows']:,} rows of training and validation together, for "
            f"{again['epochs']} epoch{'' if again['epochs'] == 1 else 's'} and {duration(again['seconds'])}: that is the "
            "model. Figures on validation are of the one before"
            f"{', and the network from scratch had training rows alone' if 'scratch' in report['baselines'] else ''}."
        )
    if training.get("best_epoch") == 0:
        sentences.append(f"No epoch was better on validation than the start{_started(report)}, so that was kept.")
    if report.get("memorising"):
        sentences.append(report["memorising"])
    return sentences


def headless(report: Mapping[str, Any]) -> bool:
    """Whether the network has no head: what the backbone gives is all that is wanted."""
    return bool(report["model"].get("head") == "none")


def baseline(report: Mapping[str, Any], name: str) -> str:
    """What stands behind the name of a baseline."""
    return "the pre-trained network as it came" if name == "probe" and headless(report) else BASELINES.get(name, name)


def adapted(report: Mapping[str, Any]) -> list[str]:
    """What came of the adaptation, where there was one; whether it helped the task is what the comparison says."""
    found = report.get("adapt")
    if found is None:
        return []
    metric, after = found["metric"], found["after"]
    reached = f"{value(metric, after['value'])} ({bounds(metric, after['low'], after['high'])})"
    went = f"fell from {value(metric, found['before']['value'])} to {reached}" if "before" in found else f"is {reached}"
    epochs = f"{found['epochs']} epoch{'' if found['epochs'] == 1 else 's'}"
    return [
        f"Before the task the network went on with its pre-training ({found['task']}, {found['method']}) on "
        f"{found['texts']:,} texts, for {epochs} and {duration(found['seconds'])}: the {metric_name(metric)} of "
        f"{found['held_out']:,} texts held out {went}."
    ]


def measured(report: Mapping[str, Any]) -> int:
    """How many test rows the primary metric is of: all, unless they would have had to be written."""
    return int(report.get("rows_measured", report["data"]["test"]))


def lost(name: str, found: Mapping[str, Any]) -> list[str]:
    """What became of the rows of `name` that the model could not read as a whole, or at all."""
    sentences = []
    if left := found.get("rows_left_out"):
        sentences.append(
            f"Of {name}, {rows(left)} {'has' if left == 1 else 'have'} nothing to learn within {found['limit']:,} tokens, "
            f"and {'counts' if left == 1 else 'count'} for nothing."
        )
    if refused := found.get("rows_refused"):
        sentences.append(
            f"Of {name}, {rows(refused)} {'is' if refused == 1 else 'are'} left out, as the chat template refuses "
            f"{'it' if refused == 1 else 'them'}. {found['refused']}"
        )
    if cut := found["rows_cut"]:
        sentences.append(
            f"Of {name}, {rows(cut)} of more than {found['limit']:,} tokens {'was' if cut == 1 else 'were'} cut at the "
            f"{where(found)}: {100 * found['share_of_tokens']:.1f} % of all tokens; the longest has {found['longest']:,}."
        )
    if long := found["rows_in_windows"]:
        sentences.append(
            f"Of {name}, {rows(long)} of more than {found['limit']:,} tokens {'was' if long == 1 else 'were'} read in "
            "overlapping windows."
        )
    return sentences


def lengths(report: Mapping[str, Any]) -> list[str]:
    """What became of rows that are longer than the model takes; nothing where inputs have no length."""
    splits = report.get("truncation")
    if splits is None:
        return []
    sentences = [sentence for name, found in splits.items() for sentence in lost(f"the {name} split", found)]
    if any(found["rows_in_windows"] for found in splits.values()):
        sentences.append("Other loaders read the first window only; `tunesmith predict` reads them all.")
    for name, found in splits.items():
        cut = found.get("targets", {})
        if cut.get("rows_cut"):
            sentences.append(
                f"Of the {name} split, the targets of {rows(cut['rows_cut'])} were cut at the end, as they have more than "
                f"{cut['limit']:,} tokens: {cut['tokens_lost']:,} in all. No end is learned there."
            )
    if not sentences:
        longest = max(found["longest"] for found in splits.values())
        limit = splits["train"]["limit"]
        sentences.append(f"No row is longer than the limit of {limit:,} tokens; the longest has {longest:,}.")
    return sentences


def sizes(audit: Mapping[str, Any]) -> list[str]:
    """How large images are, and of which kinds; nothing where inputs are no images."""
    found = audit.get("images")
    if found is None:
        return []
    sentences = []
    for name, split in found.items():
        low, middle, high = (f"{split['width'][at]:.0f} × {split['height'][at]:.0f}" for at in ("min", "median", "max"))
        modes = ", ".join(f"{count:,} {MODES.get(mode, mode)}" for mode, count in split["modes"].items())
        size = f"of {low} pixels" if low == high else f"from {low} to {high} pixels, {middle} in the middle"
        sentences.append(f"Images of the {name} split: {modes}, {size}.")
    return sentences


def _pixels(audit: Mapping[str, Any]) -> list[str]:
    """How much of the training images each class has; nothing where targets are no masks."""
    found = audit.get("pixels", {}).get("train")
    if found is None:
        return []
    shares = sorted(found["classes"].items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{label} {share(amount, 1)}" for label, amount in shares[:SHARES_SHOWN])
    more = f" and {len(shares) - SHARES_SHOWN} more" if len(shares) > SHARES_SHOWN else ""
    return [f"Pixels of the train split: {shown}{more}; {share(found['labelled'], 1)} of all are labelled."]


def contents(audit: Mapping[str, Any]) -> list[str]:
    """What targets that are more than a class or a score hold."""
    return [
        *_pixels(audit),
        *_boxes(audit),
        *_identities(audit),
        *_entities(audit),
        *_answers(audit),
        *_preferred(audit),
    ]


def _preferred(audit: Mapping[str, Any]) -> list[str]:
    return [
        f"Of the {name} split the chosen answer is the longer one in {share(found['chosen_longer'])} of the pairs."
        for name, found in audit.get("pairs", {}).items()
    ]


def _boxes(audit: Mapping[str, Any]) -> list[str]:
    return [
        f"Boxes of the {name} split: {found['boxes']:,}, {found['a_image']['min']:.0f} to {found['a_image']['max']:.0f} an "
        "image."
        for name, found in audit.get("boxes", {}).items()
    ]


def _identities(audit: Mapping[str, Any]) -> list[str]:
    return [
        f"Identities of the {name} split: {found['identities']:,}, {found['images']['min']:.0f} to "
        f"{found['images']['max']:.0f} images each."
        for name, found in audit.get("identities", {}).items()
    ]


def _entities(audit: Mapping[str, Any]) -> list[str]:
    found = audit.get("entities", {})
    said = [
        f"The {name} split has {one['words']:,} words"
        + (f" and {one['objects']:,} entities." if one["objects"] != one["words"] else ", each with a tag.")
        for name, one in found.items()
    ]
    if "unseen" in found.get("test", {}):
        said.append(f"Of the entities' wordings in test, {share(found['test']['unseen'])} never stand in train.")
    return said


def _answers(audit: Mapping[str, Any]) -> list[str]:
    """How many questions have none, and how long answers are."""
    said = []
    for name, found in audit.get("answers", {}).items():
        low, middle, high = (f"{found['characters'][at]:,.0f}" for at in ("min", "median", "max"))
        length = f"; answers have {low} to {high} characters, {middle} in the middle" if high != "0" else ""
        passages = f"{found['passages']:,} passage{'' if found['passages'] == 1 else 's'}"
        said.append(
            f"The {name} split asks {found['rows']:,} questions of {passages}, "
            f"{found['unanswerable']:,} without an answer{length}."
        )
    return said


def ordered(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons, the hardest baseline first."""
    sign = direction.sign(report["primary_metric"])
    return sorted(report.get("comparisons", []), key=lambda entry: sign * entry["difference"]["value"])


def confidence(report: Mapping[str, Any]) -> str:
    """ "95 %": of all intervals of the report."""
    return f"{100 * report.get('confidence', 0.95):g} %"


def _gained(metric: str, entry: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the most that was gained; losses are below 0."""
    ends = [direction.sign(metric) * entry["difference"][end] for end in ("low", "high")]
    return min(ends), max(ends)


def _started(report: Mapping[str, Any]) -> str:
    """What the weights were from before the first step."""
    kinds = {"linear": ", whose head was solved for", "none": ", the pre-trained network"}
    return kinds.get(report["model"].get("head", "linear"), "")


def _compared(report: Mapping[str, Any], metric: str, entry: Mapping[str, Any]) -> str:
    gained = entry["difference"]
    what = baseline(report, entry["against"])
    span = f"interval {signed(metric, gained['low'])} to {signed(metric, gained['high'])}"
    least, most = _gained(metric, entry)
    if least > 0 or most < 0:
        return (
            f"That is {gap(metric, gained['value'])} {'more' if gained['value'] > 0 else 'less'} than {what} ({span})."
        )
    return f"A gain over {what} is not proven: the difference is {signed(metric, gained['value'])} ({span})."
