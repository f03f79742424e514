"""Faster ways to compute what torch computes: linear layers, gradients of embeddings, memory kept."""
