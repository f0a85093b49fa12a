"""Requests and results of the functions ner, answer, embed and generate: a part of the platform's public contract."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .contracts import Contract, ModelRef, ModelVersion, Text, TokenizerRef

__all__ = [
    "Answer",
    "AnswerInput",
    "AnswerRequest",
    "AnswerResult",
    "EmbedRequest",
    "EmbedResult",
    "Entity",
    "GenerateRequest",
    "GenerateResult",
    "GenerateSettings",
    "GeneratedText",
    "NerRequest",
    "NerResult",
    "RecognizedText",
]


class TextsInput(Contract):
    """The texts to predict for."""

    input_text: list[Text] = Field(min_length=1, max_length=4096)


class NerRequest(Contract):
    """Find the named entities of texts of any length."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: TextsInput
    score_threshold: float | None = Field(None, ge=0, le=1, description="Leave out entities below this probability.")


class Entity(Contract):
    """A named entity: `text` is the characters from `start` to before `end` of the text that was sent."""

    text: str
    label: str
    score: float = Field(description="The mean probability of its words' tags.")
    start: int
    end: int


class RecognizedText(Contract):
    """The entities of one text, in its order."""

    entities: list[Entity]


class NerResult(Contract):
    """One prediction for each text, in the order of the texts."""

    predictions: list[RecognizedText]
    model: ModelVersion


class AnswerInput(Contract):
    """Questions, and the text that each is answered from: one for each question, or one for all."""

    question: list[Text] = Field(min_length=1, max_length=256)
    context: list[Text] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _contexts(self) -> AnswerInput:
        if len(self.context) not in (1, len(self.question)):
            raise ValueError(f"give one `context`, or one for each of the {len(self.question)} questions")
        return self


class AnswerRequest(Contract):
    """Answer questions with words of a text of any length."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: AnswerInput
    max_answer_tokens: int = Field(30, ge=1, le=512, description="The longest answer.")


class Answer(Contract):
    """The characters from `start` to before `end` of the context; none of the three where the model says that it holds no answer."""

    answer: str | None = None
    score: float = Field(description="The probability among all answers of at most `max_answer_tokens`.")
    start: int | None = None
    end: int | None = None


class AnswerResult(Contract):
    """One prediction for each question, in the order of the questions."""

    predictions: list[Answer]
    model: ModelVersion


class EmbedRequest(Contract):
    """Turn texts into vectors."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: TextsInput


class EmbedResult(Contract):
    """One vector for each text, in the order of the texts; the ones that `search` and `index` compute."""

    vectors: list[list[float]]
    dimension: int
    truncated: list[bool] = Field(description="Which texts were longer than the model's maximum and lost their end.")
    model: ModelVersion


class PromptInput(Contract):
    """The texts to continue."""

    input_text: list[Text] = Field(min_length=1, max_length=64)


class GenerateSettings(Contract):
    """How to continue a text: the likeliest token each time, or one of the `top_k` likeliest, drawn by `seed`."""

    max_new_tokens: int = Field(32, ge=1, le=2048)
    top_k: int = Field(1, ge=1, le=1000, description="1 takes the likeliest token each time; more draws among so many.")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Below 1 keeps to the likely tokens, above 1 dares more; with `top_k` above 1."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="The same seed gives the same text; with `top_k` above 1.")


class GenerateRequest(Contract):
    """Continue texts."""

    tokenizer: TokenizerRef | None = None
    model: ModelRef
    predict_input: PromptInput
    generate: GenerateSettings = GenerateSettings()


class GeneratedText(Contract):
    """What follows one text. `finish` is `end` where the model ended it, `length` where a maximum did."""

    text: str
    tokens: int
    finish: Literal["end", "length"]


class GenerateResult(Contract):
    """One prediction for each text, in the order of the texts."""

    predictions: list[GeneratedText]
    model: ModelVersion
