"""A cluster in virtual time around the driver's real code: what 1,000 nodes ask of one driver."""
