"""A backbone with another pooling than its own class has: its folder, and who opens it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tunesmith.contracts import Head, Model
from tunesmith.errors import ModelError
from tunesmith.models import save, sources
from tunesmith.models.load import load_classifier
from tunesmith.models.probes import with_head
from tunesmith.models.reload import reload

TEXTS = ["word1 word2 word3", "word9"]


@pytest.fixture
def pooled(tiny_model: Path) -> Model:
    model = load_classifier(str(tiny_model), ["good", "bad"], "single-label", seed=0)
    weight = np.random.default_rng(0).normal(size=(2, 32))
    return with_head(model, Head("mean", weight, np.array([0.5, -0.5])))


def logits(model: Model) -> torch.Tensor:
    model.module.eval()
    with torch.no_grad():
        found: torch.Tensor = model.module(**model.processor(TEXTS, padding=True, return_tensors="pt")).logits
    return found


def test_it_comes_back_the_same_and_sentence_transformers_opens_it(pooled: Model, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds

    folder = tmp_path / "model"
    save.save(pooled, folder)
    assert torch.equal(logits(reload(folder)), logits(pooled))
    found = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert found == pytest.approx(logits(pooled).numpy(), abs=1e-5)


def test_transformers_does_not_take_it_for_a_classifier_without_a_head(pooled: Model, tmp_path: Path) -> None:
    save.save(pooled, tmp_path / "model")
    with pytest.raises((OSError, ValueError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")


def test_its_files_can_be_read_by_whom_others_can(pooled: Model, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    save.save(pooled, tmp_path / "model")
    modes = {path.stat().st_mode for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "other").stat().st_mode}


def test_its_backbone_can_be_fine_tuned_further(pooled: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save.save(pooled, folder)
    again = load_classifier(str(folder), ["a", "b", "c"], "single-label", seed=0)
    ours, theirs = (dict(one.module.get_submodule(one.backbone).named_parameters()) for one in (again, pooled))
    assert all(torch.equal(theirs[name], one) for name, one in ours.items())


@pytest.mark.parametrize("content", ["", "{}", "[]", '[{"idx": 0}]'])
def test_a_list_of_modules_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / sources.MODULES).write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json is not a list of modules"):
        sources.locate(str(tmp_path))
