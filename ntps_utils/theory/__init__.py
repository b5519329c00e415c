"""The score on plain arrays: moments, closed-form subspaces, scores and bounds."""
