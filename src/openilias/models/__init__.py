"""Backbones: the records of the zoo, one short adapter per library, pooling, RootSIFT-VLAD, whitening."""
