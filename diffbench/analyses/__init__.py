"""The analyses: what is neither samples, a likelihood nor a restoration, and the job that runs one."""
