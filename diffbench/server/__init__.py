"""The job server: a process that has imported what jobs need, and forks a process for each of them."""
