"""OpenILIAS: instance-level image retrieval at scale.

The rooms of the package, each importing only from those before it::

    core -> images -> data -> models -> descriptors -> adapt -> search -> rerank
         -> evaluate -> report -> experiments -> cli

and beside the way ``build`` (making test sets), ``published`` (the paper's numbers) and ``serve``.
"""

__version__ = "0.1.0"
