"""Selecting hard distractors by texts: mini-ILIAS, and random subsets to hold against it (paper, 3.3 and Table 3)."""
