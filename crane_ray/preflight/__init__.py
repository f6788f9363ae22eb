"""Is this machine fit for a run, and what will the run cost? Plain Python, without ray."""
