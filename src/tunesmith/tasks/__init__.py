"""The table of tasks: name to "module:Class". A new task is one file and one line here."""

TABLE = {
    "text-classification": "tunesmith.tasks.text_classification:TextClassification",
}
