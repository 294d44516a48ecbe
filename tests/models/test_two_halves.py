"""Networks of two halves: stages, the tokens of both sides, the loss that transformers has too, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from renderers import RENDERERS, write_renderer
from tiny import write_model
from tunesmith.contracts import Loading, Model
from tunesmith.data.asked import NOTHING
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import adapters, save
from tunesmith.models.load_seq2seq import load_seq2seq, longest_output, reload_seq2seq
from tunesmith.models.two_sides import sides, target_tokens, writer_of
from tunesmith.tasks.seq2seq import Seq2Seq
from tunesmith.tasks.tiny import WORDS

ENCODERS = ("bert", "roberta", "xlm-roberta", "electra")
SOURCES = [" ".join(WORDS[start : start + length]) for start, length in ((0, 9), (5, 3), (20, 14))]
TARGETS = [" ".join(WORDS[start : start + length]) for start, length in ((30, 2), (40, 7), (50, 4))]


def loaded(name: str, folder: Path, **more: Any) -> Model:
    where = write_renderer(folder, name) if name in RENDERERS else write_model(folder, name)
    return load_seq2seq(str(where), seed=0, loading=Loading(**more), languages=(None, None), remote_code=False)


@pytest.mark.parametrize("name", [*RENDERERS, *ENCODERS])
def test_each_parameter_lies_in_exactly_one_stage_the_reading_half_first(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path)
    names = [parameter for stage in model.stages for parameter in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in model.module.named_parameters())
    order = [stage.name for stage in model.stages]
    assert order[:5] == ["embeddings", *(f"block {number}" for number in range(4))]
    writes = [block.startswith(f"{model.decoder}.") for block in model.blocks]
    assert writes == [False, False, True, True]
    by_name = {stage.name: stage.parameters for stage in model.stages}
    assert not any(name.startswith(f"{model.decoder}.") for name in (*by_name["block 0"], *by_name["block 1"]))
    positions = [name for name in names if "position" in name and "relative" not in name]
    assert {*positions} <= {*by_name["embeddings"]}


@pytest.mark.parametrize("name", ENCODERS)
def test_what_an_encoder_lacks_for_writing_is_the_new_head(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path)
    assert model.head == "new"
    head = {stage.name: stage.parameters for stage in model.stages}["head"]
    blocks = [name for stage in model.stages if stage.name.startswith("block") for name in stage.parameters]
    crossing = [name for name, _ in model.module.named_parameters() if "crossattention" in name]
    assert crossing
    assert {*crossing} <= {*head}
    assert not any("crossattention" in name for name in blocks)
    assert not any("crossattention" in name for name in adapters.targets(model, ["block 2", "block 3"]))
    encoder, decoder = (dict(half.named_parameters()) for half in (model.module.encoder, model.module.decoder))  # type: ignore[operator]
    shared = [name for name in encoder if f"{model.module.decoder.base_model_prefix}.{name}" in decoder]  # type: ignore[operator]
    assert len(shared) > 20
    assert all(torch.equal(encoder[one], decoder[f"{model.module.decoder.base_model_prefix}.{one}"]) for one in shared)  # type: ignore[operator]


@pytest.mark.parametrize("name", [*RENDERERS, *ENCODERS])
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_saved_opens_as_it_was_also_with_a_head_of_its_own(name: str, apart: bool, tmp_path: Path) -> None:
    model = loaded(name, tmp_path / "model", apart=apart)
    model.module.eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.module.parameters()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        expected = model.module(**model.example).logits
        save.save(model, tmp_path / "saved")
        again = reload_seq2seq(tmp_path / "saved", (None, None))
        plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
        for module in (again.module, plain):
            torch.testing.assert_close(module(**model.example).logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", [*RENDERERS, *ENCODERS])
def test_the_loss_is_that_of_transformers_whatever_stands_beside_in_the_batch(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path)
    model.module.eval()
    task = Seq2Seq(Seq2Seq.Settings())
    task._writer = writer = writer_of(model, 64)
    examples = sides(model, pa.chunked_array([SOURCES]), [[one] for one in TARGETS], "", writer)
    rows = np.arange(3)
    with torch.no_grad():
        found = task.loss(model.module(**task.inputs(examples, rows, model)).logits, examples, rows)
        expected = 0.0
        for row in range(3):
            piece = slice(int(examples.target.offsets[row]), int(examples.target.offsets[row + 1]))
            labels = torch.from_numpy(examples.target.ids[piece].astype(np.int64))[None]
            start = slice(int(examples.source.offsets[row]), int(examples.source.offsets[row + 1]))
            ids = torch.from_numpy(examples.source.ids[start].astype(np.int64))[None]
            expected += float(model.module(input_ids=ids, labels=labels).loss) * labels.shape[1]
    assert float(found.sum) == pytest.approx(expected, rel=1e-4)
    assert found.count == examples.target.lengths.sum()


def test_the_token_that_ends_a_text_is_learned_but_not_where_the_text_was_cut(tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    whole, lost = target_tokens(writer_of(model, 64), TARGETS)
    ends = [int(one) - 1 for one in whole.offsets[1:]]
    assert [int(whole.wanted[end]) for end in ends] == [3, 3, 3]
    assert lost.tolist() == [0, 0, 0]
    cut, lost = target_tokens(writer_of(model, 6), TARGETS)
    assert lost.tolist() == [0, 3, 0]
    assert cut.lengths.tolist() == [4, 6, 6]
    end = int(cut.offsets[2]) - 1
    assert (int(cut.ids[end]), int(cut.wanted[end])) == (3, NOTHING)


def test_a_tokenizer_that_ends_no_text_is_told_to_and_one_that_cannot_is_refused(tmp_path: Path) -> None:
    where = write_renderer(tmp_path / "t5", "t5")
    bare = transformers.AutoTokenizer.from_pretrained(where)
    bare.backend_tokenizer.post_processor = None
    bare.save_pretrained(where)
    model = load_seq2seq(str(where), seed=0, loading=Loading(), languages=(None, None), remote_code=False)
    found, _ = target_tokens(writer_of(model, 64), TARGETS)
    assert [int(found.wanted[end - 1]) for end in found.offsets[1:]] == [3, 3, 3]
    bare.eos_token = None
    bare.save_pretrained(where)
    with pytest.raises(ModelError, match="no token that ends a text"):
        load_seq2seq(str(where), seed=0, loading=Loading(), languages=(None, None), remote_code=False)


def test_a_mark_that_stands_before_every_text_is_written_first(tmp_path: Path) -> None:
    """Of a model of many languages that is the language; here it is [CLS]."""
    writer = writer_of(loaded("t5", tmp_path), 64)
    assert (writer.before, writer.after, writer.begin, writer.ends) == ((2,), (3,), 0, (3,))
    assert writer_of(loaded("bert", tmp_path / "bert"), 64).before == ()  # it begins what is written, and so is given


def write_of_languages(folder: Path) -> Path:
    """An mBART of two languages: a text ends with the mark of its own, and begins with it where it is written."""
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"\u2581{word}", -float(number)) for number, word in enumerate(WORDS, 1)]
    tokenizer = transformers.MBartTokenizer(vocab=vocabulary, src_lang="en_XX", tgt_lang="ro_RO")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = RENDERERS["mbart"]()
        config.update({"vocab_size": len(tokenizer), "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0})
        transformers.MBartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_languages_are_those_of_the_settings(tmp_path: Path) -> None:
    where = str(write_of_languages(tmp_path / "mbart"))
    model = load_seq2seq(where, seed=0, loading=Loading(), languages=("de_DE", "fr_XX"), remote_code=False)
    german, french = (model.processor.convert_tokens_to_ids(code) for code in ("de_DE", "fr_XX"))
    writer = writer_of(model, 64)
    assert writer.begin == french
    examples = sides(model, pa.chunked_array([SOURCES]), [[one] for one in TARGETS], "", writer)
    assert int(examples.source.ids[int(examples.source.offsets[1]) - 1]) == german
    first = slice(0, int(examples.target.offsets[1]))
    assert int(examples.target.ids[first][-1]) == french
    assert int(examples.target.wanted[first][-1]) == NOTHING
    assert int(examples.target.wanted[first][-2]) == model.processor.eos_token_id
    with pytest.raises(SettingsError, match="no language 'xx_YY'"):
        load_seq2seq(where, seed=0, loading=Loading(), languages=("xx_YY", None), remote_code=False)


def test_the_languages_are_said_also_where_they_are_the_models_own(tmp_path: Path) -> None:
    where = str(write_of_languages(tmp_path / "mbart"))
    task = Seq2Seq(Seq2Seq.Settings(target_language="fr_XX"))
    task.load_model(where, (), seed=0)
    assert task.told()[0] == "Marks of languages: 'en_XX' for what is read, 'fr_XX' for what is written."


def write_m2m(folder: Path) -> Path:
    """An M2M-100 with its own tokenizer, which has no language unless it is told one."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 50), model_prefix=str(folder / "spm"), vocab_size=30, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(one) for one in range(3, 30))]
    (folder / "vocabulary.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    tokenizer = transformers.M2M100Tokenizer(str(folder / "vocabulary.json"), str(folder / "spm.model"))
    config = RENDERERS["m2m-100"]()
    config.update({"vocab_size": 256, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2})
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_has_no_language_of_its_own_asks_for_it(tmp_path: Path) -> None:
    where = str(write_m2m(tmp_path / "m2m"))
    with pytest.raises(SettingsError, match="nothing says which one") as refused:
        Seq2Seq(Seq2Seq.Settings()).load_model(where, (), seed=0)
    assert "task.target_language" in str(refused.value.mend)
    task = Seq2Seq(Seq2Seq.Settings(source_language="de", target_language="fr"))
    model = task.load_model(where, (), seed=0)
    assert task.told()[0] == "Marks of languages: '__de__' for what is read, '__fr__' for what is written."
    french = model.processor.convert_tokens_to_ids("__fr__")
    found, _ = target_tokens(task._writer, TARGETS)
    assert (found.ids[found.offsets[:-1]] == french).all()
    assert model.module.generation_config.forced_bos_token_id == french


@pytest.mark.parametrize("name", ["distilbert", "albert", "gpt2"])
def test_what_neither_writes_nor_can_be_made_to_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not make one text of another") as refused:
        loaded(name, tmp_path)
    assert "T5" in str(refused.value.mend)


def test_a_network_writes_no_more_than_it_has_positions_for(tmp_path: Path) -> None:
    assert longest_output(loaded("bart", tmp_path / "bart")) == 64
    assert longest_output(loaded("roberta", tmp_path / "roberta")) == 65
    assert longest_output(loaded("t5", tmp_path / "t5")) == 1_000_000


def test_four_bits_of_a_network_that_is_made_here_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no files to read in 4 bits"):
        loaded("bert", tmp_path, four_bit=True)
