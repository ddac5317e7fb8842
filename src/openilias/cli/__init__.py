"""The ``ilias`` command: parse, call one public function, print."""

from openilias.cli.main import main

__all__ = ["main"]
