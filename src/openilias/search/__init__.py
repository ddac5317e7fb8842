"""Exact top-k over stores, and the ranking as a value."""
