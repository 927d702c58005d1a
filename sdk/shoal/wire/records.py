"""Records that pass on a port, as a tap shows them."""

from shoal import view
from shoal.v1 import records_service_pb2
from shoal.wire import fields
from shoal.wire.codec import codec
from shoal.wire.state import decode_stream_counters

TAP_WISH = codec(view.TapWish, records_service_pb2.TapWish)
_RECORD = codec(view.TapRecord, records_service_pb2.TapRecord)
_CONSUMER = codec(view.TapConsumer, records_service_pb2.TapConsumer)


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
        records=fields.each(sample.records, path, _RECORD.decode),
        dropped=sample.dropped,
        port=decode_stream_counters(sample.port, fields.at(path, "port")),
        consumers=fields.each(sample.consumers, path, _CONSUMER.decode),
        ended=sample.ended,
    )
