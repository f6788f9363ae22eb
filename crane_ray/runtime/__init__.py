"""Plain functions of slides and shards turned into Ray jobs: the only folder that imports ray."""
