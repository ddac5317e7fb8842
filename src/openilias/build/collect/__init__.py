"""From a collector's folder to the objects of a test set: ids, pictures, boxes, evidence, checks."""
