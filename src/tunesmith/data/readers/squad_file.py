"""SQuAD's JSON: articles with paragraphs, each with its questions and their answers; a question becomes one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.data.readers import Record, Source
from tunesmith.data.rejected import Rejected, excerpt

COLUMNS = ["id", "title", "question", "context", "answers"]


def holds_questions(value: Any) -> bool:
    """Whether the content of a JSON file is SQuAD's, or a list of its paragraphs."""
    articles = value.get("data") if isinstance(value, dict) else value
    first = articles[0] if isinstance(articles, list) and articles else None
    return isinstance(first, dict) and ("paragraphs" in first or ("qas" in first and "context" in first))


def source(value: Any, where: str, start: Path) -> Source:
    """The rows of a file's content; questions, and paragraphs, that are malformed are rejected.

    Args:
        where: the file.
        start: the folder that it lies in.
    """
    return Source(where, COLUMNS, _records(value["data"] if isinstance(value, dict) else value), start)


def _records(articles: list[Any]) -> Iterator[Record | Rejected]:
    number = 0
    for article in articles:
        title, paragraphs = _paragraphs(article)
        for paragraph in paragraphs:
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                number += 1
                yield Rejected("", number, "no paragraph with questions", excerpt(paragraph))
                continue
            for question in paragraph["qas"]:
                number += 1
                if not isinstance(question, dict):
                    yield Rejected("", number, "not a JSON object", excerpt(question))
                    continue
                told = [question.get("id"), title, question.get("question"), paragraph.get("context")]
                yield number, [*told, _answers(question)]


def _answers(question: Mapping[str, Any]) -> Any:
    """The cell of answers: none where there is said to be none; one without its text where one is promised and not given."""
    impossible, answers = question.get("is_impossible"), question.get("answers")
    if impossible is True:
        return []
    return {"answer_start": None} if answers is None or (impossible is False and answers == []) else answers


def _paragraphs(article: Any) -> tuple[Any, list[Any]]:
    """The title of an article and its paragraphs; a paragraph by itself is an article of one."""
    if isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list):
        return article.get("title"), article["paragraphs"]
    return None, [article]
