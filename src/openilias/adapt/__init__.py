"""Linear adaptation of descriptors: UJCDS, PCA whitening, learned whitening."""
