"""Generated test sets: things made up, photographed and described by a seed."""
