"""A run's topology as a picture: hosts left and right, what is between them in between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from html import escape

from testbed.report.html.svg import element, picture, text
from testbed.selftests.observations import LinkRecord, NodeRecord, TopologyRecord

NODE_WIDTH = 118
COLUMN_GAP = 190
PORT_GAP = 30
ROW_GAP = 26
MARGIN = 14
MAXIMUM_NODES = 40
"""More would be no picture."""


@dataclass(slots=True)
class _Box:
    """A node with the links that leave it to either side."""

    node: NodeRecord
    column: int
    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    y: float = 0.0

    @property
    def height(self) -> float:
        return max(46.0, PORT_GAP * max(len(self.left), len(self.right)) + 8.0)

    @property
    def x(self) -> float:
        return MARGIN + self.column * (NODE_WIDTH + COLUMN_GAP)

    def port(self, end: str, *, is_right: bool) -> tuple[float, float]:
        ports = self.right if is_right else self.left
        step = self.height / (len(ports) + 1)
        return self.x + (NODE_WIDTH if is_right else 0), self.y + step * (ports.index(end) + 1)


def topology_picture(topology: TopologyRecord) -> str:
    """Inline SVG; empty for a topology that is too large to draw."""
    if not topology.nodes or len(topology.nodes) > MAXIMUM_NODES:
        return ""
    boxes = {node.name: _Box(node, column) for node, column in _columns(topology)}
    for link in topology.links:
        first, second = boxes[_node(link.first)], boxes[_node(link.second)]
        if first.column <= second.column:
            first.right.append(link.first)
            (second.left if second.column > first.column else second.right).append(link.second)
        else:
            first.left.append(link.first)
            second.right.append(link.second)
    width, height = _place(boxes)
    parts = [part for link in topology.links for part in _link(link, boxes)]
    parts += [_box(box) for box in boxes.values()]
    return picture(width, height, parts, label=f"topology {topology.name}", class_="topology")


def _node(end: str) -> str:
    return end.rpartition(":")[0]


def _columns(topology: TopologyRecord) -> list[tuple[NodeRecord, int]]:
    """Each node by its distance from the client, or from the first host; the server comes last."""
    neighbours: dict[str, list[str]] = {node.name: [] for node in topology.nodes}
    for link in topology.links:
        neighbours[_node(link.first)].append(_node(link.second))
        neighbours[_node(link.second)].append(_node(link.first))
    hosts = [node.name for node in topology.nodes if node.kind == "host"]
    start = "client" if "client" in neighbours else (hosts or [topology.nodes[0].name])[0]
    distance = {start: 0}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for neighbour in neighbours[name]:
            if neighbour not in distance:
                distance[neighbour] = distance[name] + 1
                waiting.append(neighbour)
    farthest = max(distance.values())
    if "server" in distance:
        distance["server"] = max(farthest, distance["server"])
    return [(node, distance.get(node.name, farthest)) for node in topology.nodes]


def _place(boxes: dict[str, _Box]) -> tuple[float, float]:
    """Stack each column, centred; returns the picture's size."""
    columns: dict[int, list[_Box]] = {}
    for box in boxes.values():
        columns.setdefault(box.column, []).append(box)
    heights = {
        column: sum(box.height for box in stacked) + ROW_GAP * (len(stacked) - 1)
        for column, stacked in columns.items()
    }
    height = max(heights.values()) + 2 * MARGIN
    for column, stacked in columns.items():
        y = (height - heights[column]) / 2
        for box in stacked:
            box.y = y
            y += box.height + ROW_GAP
    width = max(box.x for box in boxes.values()) + NODE_WIDTH + MARGIN
    return width, height


def _link(link: LinkRecord, boxes: dict[str, _Box]) -> list[str]:
    first, second = boxes[_node(link.first)], boxes[_node(link.second)]
    if first.column == second.column:
        start, end = first.port(link.first, is_right=True), second.port(link.second, is_right=True)
        bend = start[0] + 60
        return [_curve(start, end, bend), *_labels(link, start, end)]
    is_forward = first.column < second.column
    left, right = (first, second) if is_forward else (second, first)
    left_end, right_end = (link.first, link.second) if is_forward else (link.second, link.first)
    start, end = left.port(left_end, is_right=True), right.port(right_end, is_right=False)
    middle = (start[0] + end[0]) / 2
    parts = [_curve(start, end, middle)]
    parts.append(text(left_end.rpartition(":")[2], start[0] + 5, start[1] - 4, class_="port"))
    parts.append(text(right_end.rpartition(":")[2], end[0] - 5, end[1] - 4, class_="port", text_anchor="end"))
    to_right, to_left = (link.forward, link.backward) if is_forward else (link.backward, link.forward)
    parts += _impairments(to_right, to_left, middle, (start[1] + end[1]) / 2)
    return parts


def _curve(start: tuple[float, float], end: tuple[float, float], bend: float) -> str:
    (left, top), (right, bottom) = start, end
    curve = f"C{bend:.1f} {top:.1f} {bend:.1f} {bottom:.1f} {right:.1f} {bottom:.1f}"
    return element("path", d=f"M{left:.1f} {top:.1f}{curve}", class_="wire")


def _labels(link: LinkRecord, start: tuple[float, float], end: tuple[float, float]) -> list[str]:
    return [
        text(name.rpartition(":")[2], place[0] + 5, place[1] - 4, class_="port")
        for name, place in ((link.first, start), (link.second, end))
    ]


def _impairments(to_right: str, to_left: str, x: float, y: float) -> list[str]:
    if to_right and to_right == to_left:
        return [text(f"{to_right} ⇄", x, y - 5, class_="impairment", text_anchor="middle")]
    parts = []
    if to_right:
        parts.append(text(f"{to_right} →", x, y - 5, class_="impairment", text_anchor="middle"))
    if to_left:
        parts.append(text(f"← {to_left}", x, y + 14, class_="impairment", text_anchor="middle"))
    return parts


def _box(box: _Box) -> str:
    node = box.node
    kind = node.stack or node.kind
    addresses = "\n".join(f"{name}: {', '.join(found)}" for name, found in node.interfaces if found)
    rectangle = element(
        "rect", x=box.x, y=box.y, width=NODE_WIDTH, height=box.height, rx=7, class_=f"node {node.kind}"
    )
    middle = box.y + box.height / 2
    return element(
        "g",
        (
            f"<title>{escape(addresses)}</title>" if addresses else "",
            rectangle,
            text(node.name, box.x + NODE_WIDTH / 2, middle - 2, class_="name", text_anchor="middle"),
            text(kind, box.x + NODE_WIDTH / 2, middle + 14, class_="kind", text_anchor="middle"),
        ),
    )
