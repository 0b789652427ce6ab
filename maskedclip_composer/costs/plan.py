"""How many steps of how many images a run has, from the indexes of its data."""

from dataclasses import dataclass

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.data.index import check_batch_size
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.times import in_steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The length of a run.

    Attributes:
        samples: Of each stream.
        batch: Images of each stream in a step, over all ranks.
        steps_per_epoch: One pass over the stream with more steps.
        steps: In all.
        ranks: Among which a step is dealt.
    """

    samples: dict[str, int]
    batch: dict[str, int]
    steps_per_epoch: int
    steps: int
    ranks: int

    @property
    def images_per_step(self) -> int:
        """Of all streams and ranks."""
        return sum(self.batch.values())


def make_plan(config: TrainConfig, ranks: int) -> Plan:
    """Open the streams as training does, and read no more than their indexes.

    Raises:
        UserError: As in `open_streams`; a batch size cannot be dealt over `ranks`.
    """
    streams = open_streams(config.data)
    for stream in streams:
        check_batch_size(stream.index, stream.batch_size, ranks, key=stream.key)
    per_epoch = max(stream.index.samples // stream.batch_size for stream in streams)
    return Plan(
        samples={stream.name: stream.index.samples for stream in streams},
        batch={stream.name: stream.batch_size for stream in streams},
        steps_per_epoch=per_epoch,
        steps=in_steps(str(config.trainer["max_duration"]), per_epoch),
        ranks=ranks,
    )
