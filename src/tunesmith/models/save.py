"""A model folder that opens without Tunesmith, the code that opens it, and the proof that it does.

A network of a standard class is written with save_pretrained and opens with transformers' `pipeline`. A backbone
with another pooling is written in the layout of sentence-transformers (modules.json), which needs nothing of ours. There
the backbone lies in a folder of its own: beside modules.json, `pipeline` would open it with a random head, and say nothing.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.torch import save_file

from tunesmith.contracts import Array, Model
from tunesmith.errors import ModelError
from tunesmith.models import adapters, embedder, heads, quantised, sources, user_network
from tunesmith.models.pooling import FIRST, LAST, MEAN, OWN, PooledClassifier
from tunesmith.run import writing
from tunesmith.settings import UserModel

PIPELINE = "pipeline"
SENTENCE_TRANSFORMERS = "sentence-transformers"
PEFT = "peft"
EMBEDDER = "auto-model"
"""A bare network, whose vectors are compared."""
STATE_DICT = "state-dict"
"""Of a network of the user's own, which its own function builds."""
POOLING_MODES = {
    FIRST: "pooling_mode_cls_token",
    MEAN: "pooling_mode_mean_tokens",
    LAST: "pooling_mode_lasttoken",
}
"""Our name to the key that is true in sentence-transformers' pooling configuration."""


COMPARED_SIDE = 16
"""Pixels of a map of logits, across and down, that a reopened model is compared by."""


def loader_of(model: Model) -> str:
    """The public loader that opens `model` once it is saved."""
    if model.adapter is not None:
        return PEFT
    if isinstance(model.source, UserModel):
        return STATE_DICT
    if isinstance(model.module, embedder.Embedder):
        return EMBEDDER
    return PIPELINE if model.pooling == OWN else SENTENCE_TRANSFORMERS


def save(model: Model, folder: Path) -> None:
    """Write `model` to `folder`; what was there is replaced only once the new files are whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    heads.fold(model)
    with writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if model.modality == "text":
            model.processor.model_max_length = model.limit
        if not isinstance(model.module, PooledClassifier):
            model.processor.save_pretrained(temporary)
        if model.adapter is not None:
            adapters.write(model, temporary)
            config: Any = copy.copy(model.module.config)
            if model.four_bit:  # the base's files hold all bits, which its configuration must not deny
                quantised.write(model.module, temporary)
                del config.quantization_config
            config.save_pretrained(temporary)
        elif isinstance(model.source, UserModel):
            user_network.write(model, temporary)
        elif isinstance(model.module, embedder.Embedder):
            embedder.write(model, temporary)
        elif isinstance(model.module, PooledClassifier):
            _save_modules(model.module, model, temporary)
        else:
            model.module.save_pretrained(temporary)  # type: ignore[operator]
        _readable(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)


def _readable(folder: Path) -> None:
    """Give files that were made for their owner alone, as safetensors makes them, the mode that others have."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _save_modules(module: PooledClassifier, model: Model, folder: Path) -> None:
    backbone: Any = module.backbone
    backbone.save_pretrained(folder / sources.BACKBONE)
    model.processor.save_pretrained(folder / sources.BACKBONE)
    for code in (folder / sources.BACKBONE).glob("*.py"):  # a model's own code: sentence-transformers looks for it here
        shutil.copyfile(code, folder / code.name)
    outputs, width = module.head.weight.shape
    package = "sentence_transformers.models"
    modules = [("0", sources.BACKBONE, "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Dense", "Dense")]
    described = [
        {"idx": int(index), "name": index, "path": path, "type": f"{package}.{kind}"} for index, path, kind in modules
    ]
    _json(folder / sources.MODULES, described)
    reading = {"max_seq_length": model.limit, "do_lower_case": False}
    _json(folder / sources.BACKBONE / "sentence_bert_config.json", reading)
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width} | {key: how == module.how for how, key in POOLING_MODES.items()},
    )
    (folder / "2_Dense").mkdir()
    _json(
        folder / "2_Dense" / "config.json",
        {
            "in_features": width,
            "out_features": outputs,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    tensors = {"linear.weight": module.head.weight.detach().cpu(), "linear.bias": module.head.bias.detach().cpu()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "2_Dense" / "model.safetensors")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


_READ_IMAGES = """
images = [Image.open(io.BytesIO(base64.b64decode(row[0]))) for row in rows]
batch = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=trusted)(images, return_tensors="pt")
with torch.no_grad():
    answer = model(**batch)
logits = answer.logits
if hasattr(answer, "pred_boxes"):
    logits = torch.cat([logits, answer.pred_boxes], dim=-1)
if logits.ndim == 4:
    step = -(-max(logits.shape[2:]) // SIDE)
    logits = logits[:, :, ::step, ::step]
print(json.dumps(logits.tolist()))
""".replace("SIDE", str(COMPARED_SIDE))
_OPEN = {
    ("image", PIPELINE): """
import base64, io, json, sys, torch, transformers
from PIL import Image
from transformers import AutoImageProcessor
folder, trusted, rows, kind = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin), getattr(transformers, sys.argv[4])
model = kind.from_pretrained(folder, trust_remote_code=trusted).eval()
"""
    + _READ_IMAGES,
    ("image", PEFT): """
import base64, io, json, sys, torch, transformers
from peft import PeftConfig, PeftModel
from PIL import Image
from transformers import AutoImageProcessor
folder, trusted, rows, outputs = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin), int(sys.argv[3])
base = getattr(transformers, sys.argv[4]).from_pretrained(
    PeftConfig.from_pretrained(folder).base_model_name_or_path,
    num_labels=outputs, ignore_mismatched_sizes=True, trust_remote_code=trusted
)
model = PeftModel.from_pretrained(base, folder).eval()
"""
    + _READ_IMAGES,
    ("image", STATE_DICT): user_network.OPEN,
    ("image", EMBEDDER): embedder.OPEN,
    ("text", PIPELINE): """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=trusted).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
texts = [row[0] for row in rows]; pairs = [row[1] for row in rows] if len(rows[0]) > 1 else None
batch = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    print(json.dumps(model(**batch).logits.tolist()))
""",
    ("text", PEFT): """
import json, pathlib, sys, torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, BitsAndBytesConfig
folder, trusted, rows, outputs = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin), int(sys.argv[3])
bits = pathlib.Path(folder, "quantization_config.json")
more = {}
if bits.is_file():
    more = dict(quantization_config=BitsAndBytesConfig.from_dict(json.loads(bits.read_text())), device_map={"": 0})
model = AutoPeftModelForSequenceClassification.from_pretrained(
    folder, num_labels=outputs, ignore_mismatched_sizes=True, trust_remote_code=trusted, **more
).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
model.config.pad_token_id = model.get_base_model().config.pad_token_id = tokenizer.pad_token_id
with torch.no_grad():  # a decoder with a prompt is given vectors, in which nobody sees padding: so row by row
    batches = [tokenizer(*row, truncation=True, return_tensors="pt").to(model.device) for row in rows]
    print(json.dumps([model(**batch).logits[0].tolist() for batch in batches]))
""",
    ("text", SENTENCE_TRANSFORMERS): """
import json, sys
from sentence_transformers import SentenceTransformer
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = SentenceTransformer(folder, device="cpu", trust_remote_code=trusted)
print(json.dumps(model.encode([tuple(row) if len(row) > 1 else row[0] for row in rows]).tolist()))
""",
}


def loading_code(model: Model, folder: str, problem: str, inputs: int) -> str:
    """The lines of Python, for the model card, that open the saved model with a public loader.

    Args:
        inputs: texts of one row: 1, or 2 for pairs.
    """
    config: Any = model.module.config
    names: dict[int, str] = config.id2label
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    if model.modality == "image":
        return _loading_code_of_images(model, folder, problem, trusted)
    if loader_of(model) == PIPELINE:
        given = '"your text"' if inputs == 1 else '{"text": "your text", "text_pair": "the other text"}'
        # Several labels: all probabilities, each with its sigmoid; a score: the number itself.
        every = {"multi-label": ", top_k=None", "regression": ', function_to_apply="none"'}.get(problem, "")
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model="{folder}"{trusted})\n'
            f"print(classify({given}, truncation=True{every}))"
        )
    if loader_of(model) == PEFT:
        texts = '"your text"' if inputs == 1 else '"your text", "the other text"'
        outputs = heads.outputs_of(model)
        given = f'"{folder}", num_labels={outputs}, ignore_mismatched_sizes=True{trusted}'
        imports, opening = "AutoTokenizer", ""
        if model.four_bit:
            imports += ", BitsAndBytesConfig"
            opening = (
                f'with open("{folder}/{quantised.FILE}") as file:\n'
                "    bits = BitsAndBytesConfig.from_dict(json.load(file))\n"
            )
            given += ', quantization_config=bits, device_map={"": 0}'
        return (
            ("import json\n\n" if model.four_bit else "")
            + f"from peft import AutoPeftModelForSequenceClassification\nfrom transformers import {imports}\n\n{opening}"
            f"model = AutoPeftModelForSequenceClassification.from_pretrained({given}).eval()\n"
            f'tokens = AutoTokenizer.from_pretrained("{folder}"{trusted})({texts}, truncation=True, return_tensors="pt")\n'
            "logits = model(**tokens.to(model.device)).logits[0].detach().cpu().numpy()\n" + _answer(names, problem)
        )
    answer = _answer(names, problem)
    given = '"your text"' if inputs == 1 else '[("your text", "the other text")]'
    taken = "" if inputs == 1 else "[0]"
    return (
        "from sentence_transformers import SentenceTransformer\n\n"
        f'logits = SentenceTransformer("{folder}"{trusted}).encode({given}){taken}\n{answer}'
    )


def segmentation_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that open a saved segmenter with a public loader."""
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    if loader_of(model) == PEFT:
        opened = f"num_labels={heads.outputs_of(model)}, ignore_mismatched_sizes=True{trusted}"
        return _with_adapters(model, folder, opened, trusted) + (
            "print(processor.post_process_semantic_segmentation(answer, [image.size[::-1]])[0])"
        )
    return (
        "from transformers import AutoImageProcessor, pipeline\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil"{trusted})\n'
        f'segment = pipeline("image-segmentation", model="{folder}", image_processor=processor{trusted})\n'
        'for part in segment("your image.jpg"):\n'
        '    print(part["label"], part["mask"].size)'
    )


def detection_code(model: Model, folder: str, threshold: float) -> str:
    """The lines of Python, for the model card, that open a saved detector with a public loader.

    Args:
        threshold: the score from which a box counts.
    """
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    if loader_of(model) == PEFT:
        opened = f"num_labels={heads.outputs_of(model)}, ignore_mismatched_sizes=True{trusted}"
        return _with_adapters(model, folder, opened, trusted) + (
            f"found = processor.post_process_object_detection(answer, {threshold:.2f}, [image.size[::-1]])[0]\n"
            'print(found["scores"], found["labels"], found["boxes"])'
        )
    return (
        "from transformers import AutoImageProcessor, pipeline\n\n"
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil"{trusted})\n'
        f'detect = pipeline("object-detection", model="{folder}", image_processor=processor{trusted})\n'
        f'for one in detect("your image.jpg", threshold={threshold:.2f}):\n'
        '    print(one["label"], one["score"], one["box"])'
    )


def _with_adapters(model: Model, folder: str, opened: str, trusted: str) -> str:
    """The lines that open adapters beside the network that they stand on, and let it read an image."""
    return (
        "from peft import PeftConfig, PeftModel\n"
        f"from transformers import AutoImageProcessor, {model.opens}\n"
        "from transformers.image_utils import load_image\n\n"
        f'base = PeftConfig.from_pretrained("{folder}").base_model_name_or_path\n'
        f"base = {model.opens}.from_pretrained(base, {opened})\n"
        f'model = PeftModel.from_pretrained(base, "{folder}").eval()\n'
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil"{trusted})\n'
        'image = load_image("your image.jpg")\n'
        'answer = model(**processor(image, return_tensors="pt"))\n'
    )


def _loading_code_of_images(model: Model, folder: str, problem: str, trusted: str) -> str:
    config: Any = model.module.config
    if loader_of(model) == STATE_DICT:
        return user_network.loading_code(model, folder) + _answer(config.id2label, problem)
    if loader_of(model) == PIPELINE:
        # As above; and no more than five classes are given unless more are asked for.
        every = {
            "multi-label": f', top_k={heads.outputs_of(model)}, function_to_apply="sigmoid"',
            "regression": ', function_to_apply="none"',
        }.get(problem, "")
        return (
            "from transformers import AutoImageProcessor, pipeline\n\n"
            f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil"{trusted})\n'
            f'classify = pipeline("image-classification", model="{folder}", image_processor=processor{trusted})\n'
            f'print(classify("your image.jpg"{every}))'
        )
    opened = f"num_labels={heads.outputs_of(model)}, ignore_mismatched_sizes=True{trusted}"
    return (
        _with_adapters(model, folder, opened, trusted)
        + "logits = answer.logits[0].detach().numpy()\n"
        + _answer(config.id2label, problem)
    )


def _answer(names: dict[int, str], problem: str) -> str:
    """The line that makes an answer of `logits`."""
    return {
        "single-label": f"labels = {[names[index] for index in sorted(names)]!r}\nprint(labels[logits.argmax()])",
        "multi-label": (
            f"labels = {[names[index] for index in sorted(names)]!r}\n"
            "print([label for label, logit in zip(labels, logits) if logit > 0])"
        ),
        "regression": "print(logits[0])",
    }[problem]


class Reopening:
    """A fresh process, without Tunesmith, that opens a saved model and computes the logits of a few rows.

    It starts, and imports what it needs, when the object is made; `ask` lets it open the folder, `compare` waits for its
    answer, and leaving the `with` block ends it.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        """`folder`: where `model` will have been saved when `ask` is called."""
        self._folder = folder
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _OPEN[model.modality, loader_of(model)],
                str(folder),
                "trusted" if model.remote_code else "",
                str(heads.outputs_of(model)),
                model.opens,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, rows: list[list[str]]) -> None:
        """Let the process open the model and read `rows`, as the model's own loader takes them."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended before: `compare` tells why
            self._process.stdin.write(json.dumps(rows))
            self._process.stdin.close()
        self._process.stdin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compare(self, expected: Array, tolerance: float) -> None:
        """Insist that the reopened model's logits are `expected`, (rows, outputs), or maps of which every few pixels are
        compared, or boxes with their logits, (rows, queries, numbers).

        Raises:
            ModelError: the model does not open, or answers otherwise by more than `tolerance` of the logits' spread.
        """
        answer, complaint = self._process.communicate()
        if self._process.returncode:
            last = complaint.strip().splitlines()[-1] if complaint.strip() else "no message"
            raise ModelError(f"The saved model {self._folder} does not open in a fresh process: {last}")
        if expected.ndim == 4:
            step = -(-max(expected.shape[2:]) // COMPARED_SIDE)
            expected = expected[:, :, ::step, ::step]
        found = np.array(json.loads(answer.strip().splitlines()[-1])).reshape(expected.shape)
        if expected.ndim == 3:
            # Boxes: which places of an image a detector looks at more closely may hang on the last bit, and each moves the
            # others a little. So each number of a box is compared by the middle of all boxes; other weights move them all.
            apart = np.median(np.abs(np.sort(found, axis=1) - np.sort(expected, axis=1)), axis=(0, 1))
        else:
            apart = np.abs(found - expected)
        difference = float(apart.max())
        if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):  # true of NaN too
            raise ModelError(
                f"The saved model {self._folder} is not the trained one: its outputs differ by up to {difference:.3g}.",
                "The trained weights are in the checkpoints folder; please report this.",
            )
