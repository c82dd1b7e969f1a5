"""Seed-OSS (ByteDance Seed 2025): Llama with biases of queries, keys and values."""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.models.families import llama

FAMILY = replace(llama.FAMILY, name="seed_oss", model_types=("seed_oss",))
