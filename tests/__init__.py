"""The tests: a mirror of skpt/, plus the common checks that walk everything public."""
