"""EXPERIMENT.yaml -> all the steps, with fingerprints and resume; and the demo."""
