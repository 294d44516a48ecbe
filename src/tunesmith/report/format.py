"""Numbers as people read them: with units, and no more digits than are worth something."""

from __future__ import annotations

SHARES = {
    "accuracy", "macro_f1", "weighted_f1", "micro_f1", "samples_f1", "exact_match", "auroc", "average_precision",
    "rouge_1", "rouge_2",
    "hamming_loss", "mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy",
    "f1", "answerable_f1", "answerable_exact_match", "unanswerable_accuracy",
    "recall_at_1", "recall_at_5", "recall_at_10", "triplet_accuracy", "map_at_r",
    "verification_accuracy", "eer", "tar_at_far_1",
    "entity_f1", "entity_macro_f1", "entity_precision", "entity_recall", "token_accuracy", "rouge_l",
    "preference_accuracy", "likelihood_accuracy", "masked_accuracy",
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100",
}  # fmt: skip
"""Metrics that are shares of one, shown in per cent."""
POINTS = {"bleu", "chrf"}
"""Metrics that go to 100, with one decimal."""
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro-F1",
    "samples_f1": "F1 by row",
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "bleu": "BLEU",
    "chrf": "chrF",
    "mcc": "Matthews correlation",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "rouge_l": "ROUGE-L",
    "pseudo_perplexity": "pseudo-perplexity",
    "masked_perplexity": "perplexity of hidden tokens",
    "masked_accuracy": "accuracy of hidden tokens",
    "entity_f1": "entity F1",
    "entity_macro_f1": "entity macro-F1",
    "f1": "F1",
    "answerable_f1": "F1 of those with an answer",
    "answerable_exact_match": "exact match of those with an answer",
    "unanswerable_accuracy": "accuracy of those without",
    "reward_chosen": "reward of chosen answers",
    "reward_rejected": "reward of rejected answers",
    "drift_chosen": "drift of chosen answers, a token",
    "drift_rejected": "drift of rejected answers, a token",
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "map": "mAP",
    "map_50": "mAP at IoU 0.5",
    "map_75": "mAP at IoU 0.75",
    "map_small": "mAP, small",
    "map_medium": "mAP, medium",
    "map_large": "mAP, large",
    "mar_100": "mean recall",
    "recall_at_1": "recall at 1",
    "recall_at_5": "recall at 5",
    "recall_at_10": "recall at 10",
    "mrr": "mean reciprocal rank",
    "triplet_accuracy": "triplets in the right order",
    "map_at_r": "MAP@R",
    "eer": "equal error rate",
    "tar_at_far_1": "accepted at 1 % false",
}


def share(amount: float, digits: int = 0) -> str:
    """A share of one: "12 %", or "12.4 %" with one digit."""
    return f"{100 * amount:.{digits}f} %"


def metric_name(name: str) -> str:
    """The metric as people write it."""
    return NAMES.get(name, name.replace("_", " "))


def value(name: str, amount: float) -> str:
    """A metric's value: "88.6 %", "34.5", "0.731" or "134.2"."""
    return f"{100 * amount:.1f} %" if name in SHARES else _number(name, amount)


def bounds(name: str, low: float, high: float) -> str:
    """An interval: "87.1 to 90.0 %" or "0.70 to 0.75"."""
    return (
        f"{100 * low:.1f} to {100 * high:.1f} %" if name in SHARES else f"{_number(name, low)} to {_number(name, high)}"
    )


def gap(name: str, amount: float) -> str:
    """The size of a difference: "8.1 points" or "0.120"."""
    if name in SHARES or name in POINTS:
        return f"{abs(amount) * (100 if name in SHARES else 1):.1f} points"
    return _plain(abs(amount))


def signed(name: str, amount: float) -> str:
    """A difference with its sign: "+8.1" (points) or "−0.120"."""
    sign = "−" if amount < 0 else "+"
    return f"{sign}{100 * abs(amount):.1f}" if name in SHARES else f"{sign}{_number(name, abs(amount))}"


def _number(name: str, amount: float) -> str:
    return f"{amount:.1f}" if name in POINTS else _plain(amount)


def _plain(amount: float) -> str:
    """Three decimals, or one where there are three digits before them."""
    return f"{amount:.1f}" if abs(amount) >= 100 else f"{amount:.3f}"


def duration(seconds: float) -> str:
    """ "0.8 s", "42 s", "1 min 12 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def size(amount: float) -> str:
    """Bytes: "812 MB", "1.3 GB"."""
    return f"{amount / 1e9:.1f} GB" if amount >= 1e9 else f"{amount / 1e6:.0f} MB"


def count(amount: float) -> str:
    """ "22.7 million", "34,512"."""
    return f"{amount / 1e6:.1f} million" if amount >= 1e6 else f"{amount:,.0f}"


def trained(some: int, all_: int) -> str:
    """Parameters of a stage: "1,774,464", or "3,072 of 1,774,464" where only some of them train."""
    return f"{some:,} of {all_:,}" if 0 < some < all_ else f"{all_:,}"


def rows(amount: int) -> str:
    """ "1 row", "1,204 rows"."""
    return f"{amount:,} row" + ("" if amount == 1 else "s")


def number(amount: object) -> str:
    """Anything that stands in a cell: floats with four digits, the rest as it is."""
    return f"{amount:.4g}" if isinstance(amount, float) else str(amount)
