"""Hugging Face models and datasets: loading, extraction, probes, finetuning."""
