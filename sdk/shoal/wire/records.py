"""Records that pass on a port, as a tap shows them."""

from __future__ import annotations

from shoal import view
from shoal.v1 import records_service_pb2
from shoal.wire import fields
from shoal.wire.state import decode_stream_counters


def encode_tap_wish(wish: view.TapWish) -> records_service_pb2.TapWish:
    """Write how much of a stream is wanted."""
    return records_service_pb2.TapWish(
        every=wish.every,
        records_per_second=wish.records_per_second,
        bytes_per_second=wish.bytes_per_second,
        record_bytes=wish.record_bytes,
    )


def decode_tap_news(
    message: records_service_pb2.TapPortResponse, path: str = "tap"
) -> view.TapNews:
    """Read what a tap has to say.

    Raises:
        WireError: a name is malformed.
    """
    job = fields.identifier("job", message.job, fields.at(path, "job"))
    if not message.HasField("sample"):
        return view.TapNews(job, message.epoch, message.sentence)
    sample = message.sample
    return view.TapNews(
        job=job,
        epoch=message.epoch,
        sentence=message.sentence,
        records=tuple(
            view.TapRecord(record.sequence, record.size_bytes, record.data, record.headers)
            for record in sample.records
        ),
        dropped=sample.dropped,
        port=decode_stream_counters(sample.port, fields.at(path, "port")),
        consumers=tuple(
            view.TapConsumer(
                consumer.lane, consumer.behind_records, consumer.behind_bytes, consumer.done
            )
            for consumer in sample.consumers
        ),
        ended=sample.ended,
    )
