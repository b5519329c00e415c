"""Helpers shared by all packages: files, provenance, validation, diagnostics."""
