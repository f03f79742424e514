"""Facts about single types that no config says; each is held by a test."""

from __future__ import annotations

# The same text gives other logits with padding than alone.
PADDING_SHOWS: dict[str, str] = {
    "canine": "convolutions over neighbouring characters, and a pooled sequence a quarter as long",
    "convbert": "convolutions reach into the padding",
    "fnet": "Fourier transforms mix all positions; there is no mask",
    "funnel": "pooling halves the padded length",
    "mobilebert": "each embedding is joined with its neighbours', the padding's too",
    "nystromformer": "landmarks are means over the padded length",
    "reformer": "buckets and chunks are cut from the padded length",
    "t5gemma": "the pooled position is one past the text, but only where there is padding to hold it",
    "t5gemma2": "the pooled position is one past the text, but only where there is padding to hold it",
    "xlnet": "the last position is pooled, padding or not",
    "yoso": "the mask is made whole numbers that are 1 everywhere, so the padding is attended to",
}

# Reversible layers compute their inputs again in the backward pass, and insist on train mode there.
NEEDS_TRAIN_MODE = frozenset({"reformer"})
