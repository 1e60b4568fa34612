"""From configuration files to jobs: reading, the registry, variants, runs.  No torch."""
