"""Reasons that 0.1.0 does not know reach it as the nearest that it knows."""

from shoal.model import Reason, ReasonCode
from shoal.v1 import pipeline_pb2
from shoal.wire.state import decode_reason, encode_reason

OOM = Reason(ReasonCode.OOM, 0, "memory ran out")


def test_oom_is_a_signal_for_a_peer_that_does_not_know_it() -> None:
    message = encode_reason(OOM)
    assert (message.code, message.exact_code) == ("SIGNAL", "OOM")
    assert decode_reason(message) == OOM


def test_processes_is_an_exit_for_a_peer_that_does_not_know_it() -> None:
    refused = Reason(ReasonCode.PROCESSES, 0, "it may have 8 at once")
    message = encode_reason(refused)
    assert (message.code, message.exact_code) == ("EXIT", "PROCESSES")
    assert decode_reason(message) == refused


def test_a_code_of_a_later_version_is_the_nearest_that_this_one_knows() -> None:
    message = pipeline_pb2.Reason(code="SIGNAL", exact_code="HEAT", number=9)
    assert decode_reason(message) == Reason(ReasonCode.SIGNAL, 9)
