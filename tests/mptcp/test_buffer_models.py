"""The buffers of a connection against models that hold one entry for each byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mptcp_stack.counters import Counters
from mptcp_stack.mptcp.mapping_table import MAXIMUM_MAPPINGS, Addition, MappingTable
from mptcp_stack.mptcp.receive_buffer import ReceiveBuffer
from mptcp_stack.mptcp.send_buffer import PIECE_BYTES, SendBuffer
from mptcp_stack.mptcp.subflow import MptcpSubflow
from mptcp_stack.tcp.retransmission_queue import Mapping
from tests.mptcp.network import Network

LIMIT = 60
STEPS = settings(max_examples=120, deadline=None)


def content(start: int, end: int) -> bytes:
    """Each position has a byte of its own, so that a run that is misplaced shows."""
    return bytes(position % 251 for position in range(start, end))


def carriers() -> list[MptcpSubflow]:
    """Two subflows, which the send buffer only tells apart."""
    network = Network()
    return [network.connect().subflows[0] for _ in range(2)]


CARRIERS = carriers()


class SendModel:
    """Which bytes may have to be sent once more, and by whom they went last."""

    def __init__(self) -> None:
        self.una = self.nxt = self.written = 1
        self.carrier: dict[int, int] = {}
        self.again: set[int] = set()

    def acknowledge(self, position: int) -> bool:
        if not self.una <= position <= self.nxt:
            return False
        self.una = position
        self.again = {each for each in self.again if each >= position}
        return True


def send_steps() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    names = st.sampled_from(["write", "take", "acknowledge", "lose", "again", "again", "oldest"])
    return st.lists(st.tuples(names, st.integers(0, 40), st.integers(0, 1)), max_size=40)


@STEPS
@given(send_steps())
def test_send_buffer_agrees_with_the_model(steps: list[tuple[str, int, int]]) -> None:
    buffer, model = SendBuffer(LIMIT), SendModel()
    for name, number, carrier in steps:
        _apply_to_send_buffer(buffer, model, name, number, carrier)
        assert (buffer.una, buffer.nxt, buffer.written) == (model.una, model.nxt, model.written)
        held_bytes = model.written - model.una
        assert buffer.held_bytes == held_bytes < LIMIT + PIECE_BYTES
        assert buffer.writable_bytes == (PIECE_BYTES if held_bytes < LIMIT else 0)
        assert buffer.is_writable == (3 * held_bytes <= 2 * LIMIT)
        assert buffer.has_outstanding == (model.nxt > model.una)
        pending = buffer.next_reinjection()
        assert (pending is not None) == bool(model.again)
        if pending is not None:
            assert max(pending.start, model.una) == min(model.again)


def _apply_to_send_buffer(buffer: SendBuffer, model: SendModel, name: str, number: int, carrier: int) -> None:
    match name:
        case "write":
            data = content(model.written, model.written + number)
            model.written += buffer.write(data)
        case "take" if min(number, buffer.unsent.length):
            run = buffer.take(min(number, buffer.unsent.length), CARRIERS[carrier])
            assert b"".join(run.payload) == content(run.start, run.end)
            assert run.start == model.nxt
            model.carrier.update(dict.fromkeys(range(run.start, run.end), carrier))
            model.nxt = run.end
        case "acknowledge":
            position = model.una - 5 + number
            assert buffer.on_data_ack(position) == model.acknowledge(position)
        case "lose":
            buffer.queue_again(CARRIERS[carrier])
            sent = range(model.una, model.nxt)
            model.again |= {each for each in sent if model.carrier[each] == carrier}
        case "again" if number and buffer.next_reinjection() is not None:
            start, payload = buffer.take_reinjection(number, CARRIERS[carrier])
            data = b"".join(payload)
            positions = set(range(start, start + len(data)))
            assert 0 < len(data) <= number
            assert data == content(start, start + len(data))
            assert start == min(model.again)
            assert positions <= model.again
            model.again -= positions
            model.carrier.update(dict.fromkeys(positions, carrier))
        case "oldest" if number:
            # What waits to be sent again anyway, and all behind it, is left out.
            stop = min(model.again, default=model.nxt)
            sent_again = b"".join(b"".join(payload) for _, payload in buffer.oldest_runs(number))
            assert sent_again == content(model.una, min(stop, model.una + number))


class ReceiveModel:
    """The bytes that came, by position, and what has been read."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.next = self.read = 1
        self.edge = 1 + LIMIT
        self.fin: int | None = None

    def receive(self, start: int, end: int) -> None:
        if end > self.edge or (self.fin is not None and end > self.fin):
            return
        self.held |= set(range(max(start, self.next), end))
        while self.next in self.held:
            self.held.remove(self.next)
            self.next += 1

    def move_edge(self) -> None:
        self.edge = max(self.edge, self.next + max(0, LIMIT - (self.next - self.read)))


def receive_steps() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    names = st.sampled_from(["receive", "receive", "receive", "read", "fin"])
    return st.lists(st.tuples(names, st.integers(-10, 80), st.integers(1, 30)), max_size=60)


@STEPS
@given(receive_steps())
def test_receive_buffer_agrees_with_the_model(steps: list[tuple[str, int, int]]) -> None:
    buffer, model = ReceiveBuffer(LIMIT, Counters()), ReceiveModel()
    for name, offset, length in steps:
        assert buffer.window() == model.edge - buffer.next_position
        match name:
            case "receive":
                start = model.next + offset
                before = model.next
                is_news = buffer.receive(start, content(start, start + length))
                model.receive(start, start + length)
                assert is_news == (model.next > before)
            case "read":
                data = buffer.read(length)
                assert data == content(model.read, min(model.next, model.read + length))
                model.read += len(data)
            case "fin" if model.fin is None and offset >= 0 and not model.held:
                buffer.fin_position = model.fin = model.next + offset
        took = buffer.take_fin()
        assert not took or model.fin == model.next
        is_over = model.fin is not None and model.next >= model.fin
        assert buffer.fin_was_taken == is_over
        assert buffer.next_position == model.next + is_over
        assert buffer.readable_bytes == model.next - model.read <= LIMIT
        assert buffer.end_of_stream == (is_over and model.next == model.read)
        assert buffer.has_gap == bool(model.held)
        model.move_edge()
        # DATA_FIN takes a place of its own, beyond the window that the data has.
        model.edge = max(model.edge, buffer.right_edge)


@STEPS
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2), st.integers(0, 60))))
def test_mappings_agree_with_the_model(steps: list[tuple[int, int, int, int]]) -> None:
    """Each position of the subflow belongs to one mapping at most: the first that came."""
    table = MappingTable()
    model: dict[int, tuple[int, int, int]] = {}
    for start, length, shift, delivered in steps:
        key = (start, length, start + shift)
        wanted = {model[each] for each in range(start, start + length) if each in model}
        addition = table.add(Mapping(start + shift, start, length))
        if not wanted:
            assert addition is Addition.ADDED
            model.update(dict.fromkeys(range(start, start + length), key))
        else:
            assert addition is (Addition.KNOWN if wanted == {key} else Addition.CONFLICTING)
        table.drop_before(delivered)
        over = {known for known in model.values() if known[0] + known[1] <= delivered}
        # Only what lies before all that is still needed goes.
        first_kept = min((known[0] for known in model.values() if known not in over), default=1 << 30)
        model = {each: known for each, known in model.items() if known not in over or known[0] > first_kept}
        for position in range(90):
            found = table.find(position)
            if position in model:
                assert found is not None
                mapping = found.mapping
                assert (mapping.subflow_start, mapping.length, mapping.data_start) == model[position]
            else:
                assert found is None
        assert len(table) == len(set(model.values())) <= MAXIMUM_MAPPINGS
