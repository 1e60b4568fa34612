"""A handler of SIGTERM that waits for a lock, as Snakemake's does, where the main thread holds that lock."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from diffbench.watch.sigterm import heed_apart

#: Snakemake's handler takes a lock that is not reentrant.
HELD = """
import os, signal, sys, threading
from diffbench.watch.sigterm import heed_apart

lock, heeded = threading.Lock(), threading.Event()

def handler(*args):
    with lock:
        heeded.set()

signal.signal(signal.SIGTERM, handler)
if sys.argv[1] == "apart":
    heed_apart()
with lock:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass
print("heeded" if heeded.wait(20) else "not heeded")
"""


@pytest.mark.parametrize("way", ["apart", "as Snakemake does"])
def test_a_run_that_holds_the_lock_is_not_stuck(way):
    command = [sys.executable, "-c", HELD, way]
    if way == "apart":
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "heeded\n"
        return
    # What is mended here: without it the process waits for itself.
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=3)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_where_nobody_handles_it_nothing_changes(before):
    kept = signal.signal(signal.SIGTERM, before)
    try:
        heed_apart()
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, kept)


def test_the_handler_gets_the_signal_once():
    heard = []
    done = threading.Event()
    kept = signal.signal(signal.SIGTERM, lambda number, _: (heard.append(number), done.set()))
    try:
        heed_apart()
        os.kill(os.getpid(), signal.SIGTERM)
        assert done.wait(20) and heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, kept)
