"""Starts real programs, waits for conditions, and stops what it started."""
