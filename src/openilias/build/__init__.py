"""Making test sets, generated or real. May import up to ``search``; imported only by ``experiments`` and ``cli``."""
