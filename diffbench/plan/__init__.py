"""From configuration files to jobs, without torch."""
