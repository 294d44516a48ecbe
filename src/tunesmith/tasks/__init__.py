"""The table of tasks: name to "module:Class". A new task is one file and one line here."""

TABLE = {
    "image-classification": "tunesmith.tasks.image_classification:ImageClassification",
    "text-classification": "tunesmith.tasks.text_classification:TextClassification",
}
