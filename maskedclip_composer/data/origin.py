"""Which photograph a sample is."""

from streaming import StreamingDataset


def find_origin(dataset: StreamingDataset, sample_id: int) -> dict[str, str]:
    """Return `dataset` and `source` of a sample's record; nothing where its shard is not at hand.

    A limited cache may have evicted the shard. It is not fetched again: that could fail, or keep other ranks waiting.

    Args:
        dataset: Of `build_loader`.
        sample_id: Over both streams, as in `Batch`.
    """
    try:
        shard, row = dataset.spanner[sample_id]
        record = dataset.shards[shard].get_item(row)
        return {"dataset": str(record["dataset"]), "source": str(record["source"])}
    except (OSError, ValueError, LookupError):
        return {}
