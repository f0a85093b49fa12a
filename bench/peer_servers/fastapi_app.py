"""The plain server that many write first: FastAPI around transformers in PyTorch. Started by uvicorn, MODEL and TASK in the environment."""

from __future__ import annotations

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModel, AutoTokenizer, pipeline

MODEL, TASK = os.environ["MODEL"], os.environ["TASK"]
app = FastAPI()
if TASK == "classify":
    classifier = pipeline("text-classification", model=MODEL, top_k=None, device="cpu")
else:  # a pipeline does not pool token vectors: as the model's card does it
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModel.from_pretrained(MODEL).eval()


class Texts(BaseModel):
    """The body of a request."""

    texts: list[str]


@app.post("/classify")
def classify(asked: Texts) -> list[list[dict[str, str | float]]]:
    """All labels with their scores, for each text."""
    return classifier(asked.texts, batch_size=32)


@app.post("/embed")
def embed(asked: Texts) -> list[list[float]]:
    """A vector of length 1 for each text: the mean of its tokens' vectors."""
    encoded = tokenizer(asked.texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1)).tolist()
