"""Publishing a test set: checks, tars, lists, checksums, licences, a datasheet, and pages to look at it."""
