"""The score on plain arrays: moments, closed forms, bounds."""
