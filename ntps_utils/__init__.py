"""Next Token Perception Score: the score, its bounds, and the evidence for it.

Companion library of the book "Does next-token prediction learn what your task
needs?", after Cheng, Hu, Huang and Balestriero (arXiv:2505.17169).
"""

__version__ = "0.1.0"
