"""Files, provenance and diagnostics that every package uses."""
