"""Boxes from the tools that people draw them with."""
