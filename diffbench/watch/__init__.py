"""What a run shows while it goes on: its jobs, and the time that is left by the estimate."""
