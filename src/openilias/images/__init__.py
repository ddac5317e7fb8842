"""Decoding, resizing, padding, boxes and tar shards."""
