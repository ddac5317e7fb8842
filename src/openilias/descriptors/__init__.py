"""From images to stores of descriptors."""
