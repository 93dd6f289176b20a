"""Arrays in, arrays out: the estimators, metrics and tests of bidsdnn, which import nothing else of it."""
