"""Training: a generator of events over a plan. Knows no task and no method by name."""
