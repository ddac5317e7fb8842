"""Every figure and table of the paper, for any model: one function each, from values to an exhibit."""
