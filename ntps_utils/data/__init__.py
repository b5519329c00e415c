"""Declarative entries and recorded facts that ship with the package."""
