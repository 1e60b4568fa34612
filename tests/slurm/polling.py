"""`snakemake` that asks Slurm for the states of its jobs every second; the executor alone waits up to three minutes."""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)

if __name__ == "__main__":
    main()
