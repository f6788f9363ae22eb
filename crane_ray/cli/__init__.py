"""The ``crane-ray`` command: one verb a job."""
