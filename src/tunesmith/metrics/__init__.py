"""Pure functions: truth and prediction in, value out. Knows no torch and no task."""
