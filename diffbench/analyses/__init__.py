"""The analyses: measurements other than samples, likelihoods and restorations, and the job that runs one."""
