"""Predictions for a file of texts: accepted by the functions classify, fill_mask and search, done by a job (`python -m mlaas.batch`)."""

from .accept import CONTRACTS, BatchRequest, accept

__all__ = ["CONTRACTS", "BatchRequest", "accept"]
