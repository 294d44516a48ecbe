"""The proof that a saved model opens without Tunesmith and answers as the trained one does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Self

import numpy as np

from tunesmith.contracts import Array, Model
from tunesmith.errors import ModelError
from tunesmith.models import embedder, heads, user_embedder, user_network
from tunesmith.models.save import (
    EMBEDDER,
    PEFT,
    PIPELINE,
    SENTENCE_TRANSFORMERS,
    STATE_DICT,
    loader_of,
)

COMPARED_SIDE = 16
"""Pixels of a map of logits, across and down, that a reopened model is compared by."""

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
_READ_TO_THE_END = """
import torch
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
with torch.no_grad():
    batches = [tokenizer(*row, truncation=True, return_tensors="pt").to(model.device) for row in rows]
    found = [model(**batch).logits[0, -1] for batch in batches]
print(json.dumps(torch.stack(found).tolist()))
"""
_READ_AND_WRITE = """
import torch
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
def logits(source, target):
    read = tokenizer(source, truncation=True, return_tensors="pt").to(model.device)
    told = tokenizer(text_target=target, truncation=True, return_tensors="pt")["input_ids"].to(model.device)
    return model(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=told).logits[0, -1]
with torch.no_grad():
    print(json.dumps(torch.stack([logits(*row) for row in rows]).tolist()))
"""
RENDERS = "text of a text"
LANGUAGE = "language model"
VECTORS = "vectors of a network of one's own"
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
    (VECTORS, STATE_DICT): user_embedder.OPEN,
    ("text", PIPELINE): """
import json, sys, torch, transformers
from transformers import AutoTokenizer
folder, trusted, rows, kind = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin), getattr(transformers, sys.argv[4])
model = kind.from_pretrained(folder, trust_remote_code=trusted).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
texts = [row[0] for row in rows]; pairs = [row[1] for row in rows] if len(rows[0]) > 1 else None
batch = tokenizer(texts, pairs, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    answer = model(**batch)
two = hasattr(answer, "start_logits")
logits = torch.stack([answer.start_logits, answer.end_logits], dim=-1) if two else answer.logits
if logits.ndim == 3:  # of each token: what stands at padding means nothing
    logits = logits * batch["attention_mask"][..., None]
print(json.dumps(logits.tolist()))
""",
    ("text", PEFT): """
import json, pathlib, peft, sys, torch
from transformers import AutoTokenizer, BitsAndBytesConfig
folder, trusted, rows, outputs = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin), int(sys.argv[3])
bits = pathlib.Path(folder, "quantization_config.json")
more = {}
if bits.is_file():
    more = dict(quantization_config=BitsAndBytesConfig.from_dict(json.loads(bits.read_text())), device_map={"": 0})
model = getattr(peft, sys.argv[4].replace("Auto", "AutoPeft", 1)).from_pretrained(
    folder, num_labels=outputs, ignore_mismatched_sizes=True, trust_remote_code=trusted, **more
).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)
model.config.pad_token_id = model.get_base_model().config.pad_token_id = tokenizer.pad_token_id
with torch.no_grad():  # a decoder with a prompt is given vectors, in which nobody sees padding: so row by row
    batches = [tokenizer(*row, truncation=True, return_tensors="pt").to(model.device) for row in rows]
    answers = [model(**batch) for batch in batches]
    two = hasattr(answers[0], "start_logits")
    found = [torch.stack([one.start_logits[0], one.end_logits[0]], dim=-1) if two else one.logits[0] for one in answers]
print(json.dumps(torch.nn.utils.rnn.pad_sequence(found, batch_first=True).tolist()))
""",
    (LANGUAGE, PIPELINE): """
import json, sys, transformers
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = getattr(transformers, sys.argv[4]).from_pretrained(folder, trust_remote_code=trusted).eval()
"""
    + _READ_TO_THE_END,
    (LANGUAGE, PEFT): """
import json, pathlib, sys, transformers
from peft import PeftConfig, PeftModel
from transformers import BitsAndBytesConfig
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
bits = pathlib.Path(folder, "quantization_config.json")
more = {}
if bits.is_file():
    more = dict(quantization_config=BitsAndBytesConfig.from_dict(json.loads(bits.read_text())), device_map={"": 0})
where = PeftConfig.from_pretrained(folder).base_model_name_or_path
base = getattr(transformers, sys.argv[4]).from_pretrained(where, trust_remote_code=trusted, **more)
model = PeftModel.from_pretrained(base, folder).eval()
"""
    + _READ_TO_THE_END,
    (RENDERS, PIPELINE): """
import json, sys, transformers
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = getattr(transformers, sys.argv[4]).from_pretrained(folder, trust_remote_code=trusted).eval()
"""
    + _READ_AND_WRITE,
    (RENDERS, PEFT): """
import json, pathlib, peft, sys
from transformers import BitsAndBytesConfig
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
bits = pathlib.Path(folder, "quantization_config.json")
more = {}
if bits.is_file():
    more = dict(quantization_config=BitsAndBytesConfig.from_dict(json.loads(bits.read_text())), device_map={"": 0})
kind = getattr(peft, sys.argv[4].replace("Auto", "AutoPeft", 1))
model = kind.from_pretrained(folder, trust_remote_code=trusted, **more).eval()
"""
    + _READ_AND_WRITE,
    ("text", SENTENCE_TRANSFORMERS): """
import json, sys
from sentence_transformers import SentenceTransformer
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = SentenceTransformer(folder, device="cpu", trust_remote_code=trusted)
print(json.dumps(model.encode([tuple(row) if len(row) > 1 else row[0] for row in rows]).tolist()))
""",
}


def _kind(model: Model) -> str:
    """What is asked of a network."""
    if model.decoder:
        return RENDERS
    if isinstance(model.module, embedder.Embedder) and loader_of(model) == STATE_DICT:
        return VECTORS
    return LANGUAGE if model.language else model.modality


class Reopening:
    """A fresh process, without Tunesmith, that opens a saved model and computes the logits of a few rows.

    It starts, and imports what it needs, when the object is made; `ask` lets it open the folder, `compare` waits for its
    answer, and leaving the `with` block ends it.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        """`folder`: where `model` will have been saved when `ask` is called."""
        self._folder = folder
        self._boxes = model.modality == "image" and model.head != "linear"
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _OPEN[_kind(model), loader_of(model)],
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
        compared, or boxes with their logits, (rows, queries, numbers), or logits of tokens, (rows, tokens, outputs).

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
        if self._boxes:
            # Which places of an image a detector looks at more closely may hang on the last bit, and each moves the others a
            # little. So each number of a box is compared by the middle of all boxes; other weights move them all.
            apart = np.median(np.abs(np.sort(found, axis=1) - np.sort(expected, axis=1)), axis=(0, 1))
        else:
            apart = np.abs(found - expected)
        difference = float(apart.max())
        if not difference <= tolerance * max(1.0, float(np.abs(expected).max())):  # true of NaN too
            raise ModelError(
                f"The saved model {self._folder} is not the trained one: its outputs differ by up to {difference:.3g}.",
                "The trained weights are in the checkpoints folder; please report this.",
            )
