"""The table of tasks: name to "module:Class". A new task is one file and one line here."""

TABLE = {
    "causal-lm": "tunesmith.tasks.causal_lm:CausalLm",
    "image-classification": "tunesmith.tasks.image_classification:ImageClassification",
    "image-similarity": "tunesmith.tasks.image_similarity:ImageSimilarity",
    "masked-lm": "tunesmith.tasks.masked_lm:MaskedLm",
    "object-detection": "tunesmith.tasks.object_detection:ObjectDetection",
    "preference": "tunesmith.tasks.preference:Preference",
    "question-answering": "tunesmith.tasks.question_answering:QuestionAnswering",
    "seq2seq": "tunesmith.tasks.seq2seq:Seq2Seq",
    "semantic-segmentation": "tunesmith.tasks.semantic_segmentation:SemanticSegmentation",
    "token-classification": "tunesmith.tasks.token_classification:TokenClassification",
    "text-classification": "tunesmith.tasks.text_classification:TextClassification",
    "text-similarity": "tunesmith.tasks.text_similarity:TextSimilarity",
}
REFERENCES = {
    "masked-lm": "tunesmith.tasks.pseudo_perplexity:PseudoPerplexity",
}
"""What reference data are asked in another way than runs are: each token by itself, where a run hides some words at once."""
