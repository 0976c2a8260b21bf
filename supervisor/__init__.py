"""Keeps a pod honest: migrates, probes, decides, tells, drains. Knows nothing of what the pod serves."""

__version__ = "0.1.0"
