"""AP@k, oracle, groups; official result files in and out."""
