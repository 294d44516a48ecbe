"""The lines of Python, for the model card, that open a saved model with a public loader."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.contracts import Model
from tunesmith.models import heads, quantised, user_network
from tunesmith.models.save import PEFT, PIPELINE, STATE_DICT, loader_of


def classification_code(model: Model, folder: str, problem: str, inputs: int) -> str:
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
        return (
            _peft_opening(model, folder, "AutoPeftModelForSequenceClassification", trusted)
            + f'tokens = AutoTokenizer.from_pretrained("{folder}"{trusted})({texts}, truncation=True, return_tensors="pt")\n'
            "logits = model(**tokens.to(model.device)).logits[0].detach().cpu().numpy()\n" + _answer(names, problem)
        )
    answer = _answer(names, problem)
    given = '"your text"' if inputs == 1 else '[("your text", "the other text")]'
    taken = "" if inputs == 1 else "[0]"
    return (
        "from sentence_transformers import SentenceTransformer\n\n"
        f'logits = SentenceTransformer("{folder}"{trusted}).encode({given}){taken}\n{answer}'
    )


def similarity_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that compare two texts with the saved network."""
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    return (
        "from sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("{folder}"{trusted})\n'
        'one, other = model.encode(["your text", "the other text"])\n'
        "print(one @ other)  # vectors are of length 1"
    )


def tagging_code(model: Model, folder: str, *, whole: bool) -> str:
    """The lines of Python, for the model card, that open a saved tagger with a public loader.

    Args:
        whole: whether words in a row are one thing; otherwise each word has a tag.
    """
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    apart = loader_of(model) == PEFT
    if whole and not apart:
        return (
            "from transformers import pipeline\n\n"
            f'find = pipeline("token-classification", model="{folder}", aggregation_strategy="first"{trusted})\n'
            'for one in find("your text"):\n'
            '    print(one["word"], one["entity_group"], one["start"], one["end"])'
        )
    opening = (
        _peft_opening(model, folder, "AutoPeftModelForTokenClassification", trusted)
        if apart
        else "from transformers import AutoModelForTokenClassification, AutoTokenizer\n\n"
        f'model = AutoModelForTokenClassification.from_pretrained("{folder}"{trusted}).eval()\n'
    )
    config: Any = model.module.config
    names = [config.id2label[index] for index in sorted(config.id2label)]
    return (
        f"{opening}"
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{trusted})\n'
        f"labels = {names!r}\n"
        'text = "your text"\n'
        'tokens = tokenizer(text, truncation=True, return_offsets_mapping=True, return_tensors="pt")\n'
        'places = tokens.pop("offset_mapping")[0].tolist()\n'
        "tags = model(**tokens.to(model.device)).logits[0].argmax(dim=1).tolist()\n"
        "for (start, end), tag in zip(places, tags):  # a word has the tag of its first token\n"
        "    if end > start:\n"
        "        print(text[start:end], labels[tag])"
    )


def _peft_opening(model: Model, folder: str, kind: str, trusted: str) -> str:
    """The lines that open adapters beside the network that they stand on, in 4 bits where it was trained so."""
    own = "" if model.head == "kept" else f", num_labels={heads.outputs_of(model)}, ignore_mismatched_sizes=True"
    given = f'"{folder}"{own}{trusted}'
    if not model.four_bit:
        return (
            f"from peft import {kind}\nfrom transformers import AutoTokenizer\n\n"
            f"model = {kind}.from_pretrained({given}).eval()\n"
        )
    return (
        f"import json\n\nfrom peft import {kind}\nfrom transformers import AutoTokenizer, BitsAndBytesConfig\n\n"
        f'with open("{folder}/{quantised.FILE}") as file:\n'
        "    bits = BitsAndBytesConfig.from_dict(json.load(file))\n"
        f'model = {kind}.from_pretrained({given}, quantization_config=bits, device_map={{"": 0}}).eval()\n'
    )


def answering_code(model: Model, folder: str, longest: int, threshold: float) -> str:
    """The lines of Python, for the model card, that let a saved network answer a question with a public loader.

    Args:
        longest: tokens of the longest answer.
        threshold: the margin by which no answer must be likelier than the best one to be given; infinite where it never is.
    """
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    opening = (
        _peft_opening(model, folder, "AutoPeftModelForQuestionAnswering", trusted)
        if loader_of(model) == PEFT
        else "from transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
        f'model = AutoModelForQuestionAnswering.from_pretrained("{folder}"{trusted}).eval()\n'
    )
    found = "passage[places[start][0] : places[end][1]].strip()"
    none = (
        f"margin = float(first[0] + last[0] - spans.max())\nprint({found} if margin <= {threshold!r} else 'no answer')"
    )
    return (
        f"import torch\n{opening}"
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{trusted})\n'
        'question, passage = "your question", "the passage"\n'
        f'reading = {{"truncation": "only_second", "max_length": {model.limit}, "return_offsets_mapping": True}}\n'
        'tokens = tokenizer(question, passage, return_tensors="pt", **reading)\n'
        'places = tokens.pop("offset_mapping")[0].tolist()\n'
        "inside = [part == 1 and start < end for part, (start, end) in zip(tokens.sequence_ids(0), places)]\n"
        "with torch.no_grad():\n"
        "    answer = model(**tokens.to(model.device))\n"
        "first, last = answer.start_logits[0].float().cpu(), answer.end_logits[0].float().cpu()\n"
        f"usable = torch.tensor(inside).outer(torch.tensor(inside)).triu().tril({longest - 1})  # spans of the passage\n"
        "spans = (first[:, None] + last).masked_fill(~usable, -1e9)\n"
        "start, end = divmod(int(spans.argmax()), len(spans))\n"
        f"{f'print({found})' if math.isinf(threshold) else none}"
    )


def writing_code(model: Model, folder: str, problem: str, *, chats: bool) -> str:
    """The lines of Python, for the model card, that let a saved language model write.

    Args:
        problem: what a row is: "text", "completion", "instruction" or "chat".
        chats: whether it is given chats, which the tokenizer's template writes.
    """
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    prompt = (
        '"### Instruction:\\nyour instruction\\n\\n### Response:\\n"' if problem == "instruction" else '"your prompt"'
    )
    given = '[{"role": "user", "content": "your question"}]' if chats else prompt
    if loader_of(model) == PEFT:
        reading = 'truncation=True, max_length=room, return_tensors="pt"'
        tokens = (
            f"tokenizer.apply_chat_template({given}, add_generation_prompt=True, return_dict=True, {reading})"
            if chats
            else f"tokenizer({given}, {reading})"
        )
        return (
            _peft_opening(model, folder, "AutoPeftModelForCausalLM", trusted)
            + f'from transformers import GenerationConfig\n\nhow = GenerationConfig.from_pretrained("{folder}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}", truncation_side="left"{trusted})\n'
            f"room = {model.limit} - how.max_new_tokens\n"
            f"tokens = {tokens}.to(model.device)\n"
            # an adapter's own configuration is not read with it
            "written = model.generate(**tokens, generation_config=how)[0, tokens.input_ids.shape[1] :]\n"
            "print(tokenizer.decode(written, skip_special_tokens=True))"
        )
    return (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model="{folder}"{trusted})\n'
        f'print(write({given}, do_sample=False, return_full_text=False, handle_long_generation="hole"))'
    )


def rendering_code(model: Model, folder: str, prefix: str) -> str:
    """The lines of Python, for the model card, that let a saved network of two halves write.

    Args:
        prefix: what stands before every source.
    """
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    apart = loader_of(model) == PEFT
    beside = ", generation_config=how" if apart else ""  # an adapter's own is not read with it
    opening = (
        _peft_opening(model, folder, "AutoPeftModelForSeq2SeqLM", trusted)
        + f'from transformers import GenerationConfig\n\nhow = GenerationConfig.from_pretrained("{folder}")\n'
        if apart
        else "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
        f'model = AutoModelForSeq2SeqLM.from_pretrained("{folder}"{trusted}).eval()\n'
    )
    return (
        f"{opening}"
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{trusted})\n'
        f'tokens = tokenizer({prefix + "your text"!r}, truncation=True, return_tensors="pt").to(model.device)\n'
        f"written = model.generate(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask{beside})\n"
        "print(tokenizer.decode(written[0], skip_special_tokens=True))"
    )


def filling_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that let a saved masked language model tell a hidden word."""
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    if loader_of(model) == PEFT:
        return (
            "from peft import PeftConfig, PeftModel\n"
            "from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline\n\n"
            f'base = PeftConfig.from_pretrained("{folder}").base_model_name_or_path\n'
            f'model = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base{trusted}), "{folder}").eval()\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{trusted})\n'
            'fill = pipeline("fill-mask", model=model.get_base_model(), tokenizer=tokenizer)\n'
            'print(fill(f"your text with a {tokenizer.mask_token} in it"))'
        )
    return (
        "from transformers import pipeline\n\n"
        f'fill = pipeline("fill-mask", model="{folder}"{trusted})\n'
        'print(fill(f"your text with a {fill.tokenizer.mask_token} in it"))'
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
