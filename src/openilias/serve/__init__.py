"""The result browser and search service; beside ``experiments``."""
