"""Faults of the streams: of the object store, of its index, of the cache and other runs, and under train.py."""

from tests.drill import streams_cache, streams_index, streams_remote, streams_runs, streams_trainer

FAULTS = [
    *streams_remote.FAULTS,
    *streams_index.FAULTS,
    *streams_cache.FAULTS,
    *streams_runs.FAULTS,
    *streams_trainer.FAULTS,
]
