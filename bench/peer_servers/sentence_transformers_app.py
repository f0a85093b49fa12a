"""sentence-transformers behind FastAPI. Started by uvicorn; MODEL and BACKEND (torch or onnx) in the environment."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(os.environ["MODEL"], backend=os.environ["BACKEND"], device="cpu")


class Texts(BaseModel):
    """The body of a request."""

    texts: list[str]


@app.post("/embed")
def embed(asked: Texts) -> list[list[float]]:
    """A vector for each text."""
    return model.encode(asked.texts, batch_size=32).tolist()
