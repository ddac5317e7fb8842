"""Re-ranking: query expansion, ensembles, Chamfer similarity, spatial verification, AMES."""
