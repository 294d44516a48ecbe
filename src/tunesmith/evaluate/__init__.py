"""What the result is worth: the one reading of the test split, baselines beside it, calibration, and plain warnings."""
