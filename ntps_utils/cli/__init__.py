"""The ``ntps`` command line."""
