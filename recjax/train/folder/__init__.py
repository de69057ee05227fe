"""Run folders: checkpoints, locks, progress, recovery."""
