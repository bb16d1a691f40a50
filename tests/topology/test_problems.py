"""Bad files: each problem with its place and its hint, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import ExitCode, TopologyError
from testbed.topology import load_topology
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector

TWO_NODES = "version: 1\nname: lab\nnodes:\n  client: {}\n  server: {}\n"
LINK = "links:\n  - endpoints: [client, server]\n"


def problems_of(text: str) -> list[str]:
    """The messages without the file's name."""
    with pytest.raises(TopologyError) as caught:
        load_text(text, ProblemCollector("lab.yaml"))
    assert caught.value.exit_code is ExitCode.USAGE
    return [line.removeprefix("lab.yaml:") for line in str(caught.value).splitlines()]


def nodes(client: str, server: str = "{}") -> str:
    return f"version: 1\nname: lab\nnodes:\n  client: {client}\n  server: {server}\n{LINK}"


def link(rest: str) -> str:
    """A file whose link, on lines 6 and up, has ``rest`` besides its endpoints."""
    return f"{TWO_NODES}links:\n  - endpoints: [client, server]\n    {rest}\n"


CASES = {
    "empty": ("", ["1:1: the file is empty — start with 'version: 1'"]),
    "not a mapping": ("- 1\n", ["1:1: a topology file is a mapping — start with 'version: 1'"]),
    "nothing said": (
        "{}\n",
        [
            "1:1: 'name' is missing",
            "1:1: 'nodes' is missing",
            "1:1: 'version' is missing — write 'version: 1'",
        ],
    ),
    "version": (
        TWO_NODES.replace("1", "2") + LINK,
        ["1:10: 'version' cannot be 2 — it is 1"],
    ),
    "version as text": (
        TWO_NODES.replace("1", "'1'") + LINK,
        ["1:10: 'version' cannot be '1' — it is 1"],
    ),
    "topology name": (
        TWO_NODES.replace("lab", "My Lab") + LINK,
        ["2:7: 'My Lab' cannot be a name here — the topology's name is 1 to 32 small letters, digits or '-'"],
    ),
    "unknown key": (
        TWO_NODES + LINK + "link: []\n",
        ["8:1: unknown key 'link' — did you mean 'links'?"],
    ),
    "unknown keys deep": (
        nodes("{mptcp: {limit: {}}, kinds: host}"),
        [
            "4:20: unknown key 'limit' — did you mean 'limits'?",
            "4:32: unknown key 'kinds' — did you mean 'kind'?",
        ],
    ),
    "no nodes": ("version: 1\nname: lab\nnodes: {}\n", ["3:8: 'nodes' needs at least 1 element, not 0"]),
    "kind": (nodes("{kind: swich}"), ["4:18: 'kind' cannot be 'swich' — did you mean 'switch'?"]),
    "stack": (
        nodes("{stack: yes}"),
        ["4:19: 'stack' cannot be 'yes' — it is 'userspace', 'kernel' or 'tcp'"],
    ),
    "stack of a router": (
        nodes("{kind: router, stack: kernel, mptcp: {}}"),
        [
            "4:26: a router has no 'stack' — only hosts have",
            "4:41: a router has no 'mptcp' — only hosts have",
        ],
    ),
    "mptcp on plain TCP": (
        nodes("{stack: tcp, mptcp: {}}"),
        ["4:24: a host with 'stack: tcp' has no MPTCP — choose 'userspace' or 'kernel'"],
    ),
    "node name": (
        TWO_NODES.replace("client", "cl.nt"),
        [
            (
                "4:3: 'cl.nt' cannot be a name here — a node's name is 1 to 32 letters, digits, '-' or '_',"
                " and begins with a letter"
            ),
        ],
    ),
    "unknown node": (
        TWO_NODES + "links:\n  - endpoints: [client:eth0, sever:eth0]\n",
        ["7:30: no node is called 'sever' — did you mean 'server'?"],
    ),
    "three ends": (
        TWO_NODES + "links:\n  - endpoints: [client, server, client]\n",
        ["7:16: 'endpoints' needs at most 2 elements, not 3"],
    ),
    "one end": (
        TWO_NODES + "links:\n  - endpoints: [client]\n",
        ["7:16: 'endpoints' needs at least 2 elements, not 1"],
    ),
    "link without ends": (TWO_NODES + "links:\n  - mtu: 1500\n", ["7:5: 'endpoints' is missing"]),
    "self": (
        TWO_NODES + LINK + "  - endpoints: [client, client]\n",
        ["8:16: a link joins 'client' to itself"],
    ),
    "interface used twice": (
        TWO_NODES + "links:\n  - endpoints: [client:a, server]\n  - endpoints: [client:a, server]\n",
        ["8:17: interface client:a has a link already — in line 7; an interface is one end of one link"],
    ),
    "interface name too long": (
        TWO_NODES + "links:\n  - endpoints: [client:sixteencharactr2, server]\n",
        [
            (
                "7:17: 'sixteencharactr2' cannot be a name here — an interface's name is 1 to 15"
                " letters, digits, '.', '-' or '_', and begins with a letter"
            ),
        ],
    ),
    "interface name reserved": (
        TWO_NODES + "links:\n  - endpoints: [client:lo, server]\n",
        ["7:17: interface name 'lo' is reserved — choose another"],
    ),
    "interface name reserved on switches": (
        nodes("{}", "{kind: switch}").replace("server]", "server:br0]"),
        ["7:25: interface name 'br0' is reserved — choose another"],
    ),
    "isolated": (
        TWO_NODES + "  third: {kind: router}\n" + LINK,
        ["6:3: 'third' has no link — add one, or remove the node"],
    ),
    "no host": (
        nodes("{kind: router}", "{kind: switch}"),
        ["3:1: no node is a host"],
    ),
    "unreachable": (
        TWO_NODES + "  third: {}\n  switch: {kind: switch}\n" + LINK + "  - endpoints: [third, switch]\n",
        [
            (
                "6:3: 'third' can't reach any other host"
                " — hosts don't forward: join them by links, switches and routers"
            )
        ],
    ),
    "loop of switches": (
        (
            "version: 1\nname: lab\nnodes: {h: {}, s: {kind: switch}, t: {kind: switch}}\n"
            "links:\n  - endpoints: [h, s]\n  - endpoints: [s, t]\n  - endpoints: [t, s]\n"
        ),
        ["7:5: this link closes a loop of switches or middleboxes — broadcasts would circle in it for ever"],
    ),
    "mtu as text": (link('mtu: "1500"'), ["8:10: 'mtu' must be an integer, not '1500'"]),
    "mtu with unit": (link("mtu: 1500b"), ["8:10: 'mtu' must be an integer, not '1500b'"]),
    "mtu bounds": (link("mtu: 67"), ["8:10: 'mtu' must be at least 68, not 67"]),
    "mtu bounds above": (link("mtu: 65536"), ["8:10: 'mtu' must be at most 65535, not 65536"]),
    "mtu below IPv6's": (
        link("mtu: 1279"),
        [
            (
                "8:10: IPv6 needs an MTU of at least 1280, not 1279"
                " — raise it, or give client:eth0 IPv4 'addresses' only"
            ),
        ],
    ),
    "rate without unit": (link("impair: {rate: 10}"), ["8:20: a rate needs a unit, like '10mbit'"]),
    "rate with unknown unit": (
        link("impair: {rate: 10mbps}"),
        [
            "8:20: unknown unit of rate 'mbps'; units are bit, kbit, mbit, gbit, tbit (bits per second)",
        ],
    ),
    "rate of zero": (link("impair: {rate: 0mbit}"), ["8:20: a rate lies between 1bit and 1tbit"]),
    "rate twice a unit": (
        link("impair: {rate: 5msms}"),
        ["8:20: unknown unit of rate 'msms'; units are bit, kbit, mbit, gbit, tbit (bits per second)"],
    ),
    "units of impairments": (
        link("impair: {delay: 5, jitter: 5sec, loss: 101%, reorder: 2}"),
        [
            "8:21: a time needs a unit, like '5ms'",
            "8:32: unknown unit of time 'sec'; units are us, ms, s",
            "8:44: a share lies between 0% and 100%",
            "8:59: a share needs a unit, like '0.1%'",
        ],
    ),
    "time twice a unit": (
        link("impair: {delay: 5msms}"),
        ["8:21: unknown unit of time 'msms'; units are us, ms, s"],
    ),
    "negative loss": (
        link('impair: {"->": {loss: -1%}}'),
        ["8:27: a share is never negative, unlike '-1%'; write it like '0.1%'"],
    ),
    "negative delay": (
        link("impair: {delay: 5ms -1ms}"),
        ["8:21: a time is never negative, unlike '-1ms'; write it like '5ms'"],
    ),
    "too many values": (
        link("impair: {loss: 1% 2% 3%}"),
        ["8:20: 'loss' has no place for '3%'; it is 'loss RANDOM [CORRELATION]'"],
    ),
    "kind of loss": (
        link("impair: {loss: gemode 1%}"),
        ["8:20: 'gemode' is no kind of loss; did you mean 'gemodel'?"],
    ),
    "distribution": (
        link("impair: {delay: 5ms, jitter: 1ms, distribution: nomal}"),
        ["8:53: 'nomal' is no distribution; did you mean 'normal'?"],
    ),
    "part of a mapping": (
        link("impair: {loss: {gemodel: {p: 1%, q: 2%}}}"),
        ["8:20: unknown key 'q' of 'gemodel'; known: p, r, 1-h, 1-k"],
    ),
    "slot": (
        link("impair: {slot: 5ms 1ms}"),
        ["8:20: the longest slot is shorter than the shortest; it is 'slot MIN [MAX]'"],
    ),
    "gap of zero": (link("impair: {delay: 1ms, reorder: 5%, gap: 0}"), ["8:44: must be at least 1, not 0"]),
    "limit": (
        link("impair: {rate: 1mbit, limit: 5 6}"),
        ["8:34: 'limit' is a number of packets, bytes like '64kB', or one of each"],
    ),
    "impairments as text": (
        link("impair: dely 10ms"),
        ["8:13: 'dely' is no impairment; did you mean 'delay'?"],
    ),
    "value in impairments as text": (
        link("impair: delay 10ms loss 5"),
        ["8:13: a share needs a unit, like '0.1%'"],
    ),
    "impairment said twice": (
        link("impair: {delay: 10ms 2ms, jitter: 3ms}"),
        ["8:31: 'jitter' says again what 'delay' says — remove one of them"],
    ),
    "impairments that contradict": (
        link("impair: {reorder: 5%, distribution: normal, limit: 5}"),
        [
            "8:14: 'reorder' needs 'delay' — a packet overtakes others by going without their delay",
            "8:27: 'distribution' needs 'jitter' — say how much the delay varies",
            "8:49: 'limit' needs 'rate' — without a rate nothing waits in a queue",
        ],
    ),
    "jitter beyond the delay": (
        link('impair: {"<-": {delay: 5ms, jitter: 6ms, gap: 2}}'),
        [
            (
                "8:33: 'jitter' 6ms is more than 'delay' 5ms"
                " — no packet arrives before it was sent: raise 'delay' or lower 'jitter'"
            ),
            "8:46: 'gap' needs 'reorder' — it chooses which packets may be reordered",
        ],
    ),
    "impairment of a node": (
        nodes("{impair: {delay: 5ms}, loss: 1%}"),
        [
            "4:12: unknown key 'impair' — a link is impaired, not a node: put it under 'impair' of a link",
            "4:34: unknown key 'loss' — a link is impaired, not a node: put it under 'impair' of a link",
        ],
    ),
    "impairment beside a link's ends": (
        link("delay: 5ms"),
        ["8:5: unknown key 'delay' — put it under 'impair'"],
    ),
    "unknown impairment": (
        link("impair: {dealy: 5ms}"),
        ["8:14: unknown key 'dealy' — did you mean 'delay'?"],
    ),
    "realisation": (
        TWO_NODES + LINK + "impairments: magic\n",
        ["8:14: 'impairments' cannot be 'magic' — it is 'auto', 'emulator' or 'netem'"],
    ),
    "impair both ways and one way": (
        link('impair: {rate: 1mbit, "->": {rate: 2mbit}}'),
        [
            "8:5: 'impair' mixes both directions with each by itself — put all words under '->' and '<-'",
        ],
    ),
    "events": (
        TWO_NODES
        + LINK
        + """events:
  - {at: 3s, link: "client:eht0", set: down}
  - {at: 1s, interface: "sever:eth0", remove_address: 10.0.1.2}
  - {at: 1s, link: "client:eth0"}
  - {at: 1s, link: "client:eth0", interface: "client:eth0", set: up}
  - {at: 1s, set: up}
  - {at: 1s, link: "client:eth0", add_address: 10.0.1.7/24}
  - {at: 1s, link: "client:eth0", set: down, impair: {reorder: 5%}}
  - {at: 1s, link: "client:eth0", set: up}
  - {at: 1s, interface: "client:eth0", remove_address: 10.0.1.1, addresses: [10.0.1.3/24]}
  - {at: 2s, link: "client:eth0", impair: {loss: 1%, "->": {delay: 1ms}}}
impairments: netem
""",
        [
            "9:20: no link ends at 'client:eht0' — did you mean 'client:eth0'?",
            "10:25: no interface is called 'sever:eth0' — did you mean 'server:eth0'?",
            "11:5: nothing happens to the link — say one of: set, impair, middlebox",
            "12:5: an event is of a 'link' or of an 'interface' — say one of them",
            "13:5: an event is of a 'link' or of an 'interface' — say one of them",
            (
                "14:35: 'add_address' does not happen to the 'link' of an event — these do: set, impair,"
                " middlebox"
            ),
            "15:46: 'impair' while the lab runs needs the link emulator — let 'impairments' be 'auto'",
            (
                "15:46: an event is one change, not 'set' and 'impair' — write one event for each; they"
                " may have the same time"
            ),
            "15:55: 'reorder' needs 'delay' — a packet overtakes others by going without their delay",
            "16:35: 'set' is said twice of one time — line 15 says it too",
            "17:66: 'addresses' is for 'move_to' — one comes with 'add_address'",
            "18:35: 'impair' mixes both directions with each by itself — put all words under '->' and '<-'",
            "18:35: 'impair' while the lab runs needs the link emulator — let 'impairments' be 'auto'",
        ],
    ),
    "unfit events": (
        TWO_NODES
        + LINK
        + """events:
  - {at: 3, link: "client:eth0", set: down}
  - {link: "client:eth0", set: dwn}
  - {at: 5msms, link: "client:eth0", impair: {dely: 5ms, loss: -1%}}
  - {at: 1s, interface: "client:eth0", add_address: 10.0.1.7, move: lan}
  - {at: 1s, link: "client:eth0", middlebox: {stripe: {}, split: {payload_bytes: 0}}}
""",
        [
            "9:10: a time needs a unit, like '5ms'",
            "10:5: 'at' is missing",
            "10:32: 'set' cannot be 'dwn' — did you mean 'down'?",
            "11:10: unknown unit of time 'msms'; units are us, ms, s",
            "11:47: unknown key 'dely' — did you mean 'delay'?",
            "11:64: a share is never negative, unlike '-1%'; write it like '0.1%'",
            "12:53: '10.0.1.7' needs a prefix length, like '10.0.1.1/24'",
            "12:63: unknown key 'move' — did you mean 'move_to'?",
            "13:47: unknown key 'stripe' — did you mean 'strip'?",
            "13:82: 'payload_bytes' must be at least 1, not 0",
        ],
    ),
    "events that cannot happen": (
        """version: 1
name: moving
nodes: {client: {}, home: {kind: switch}, office: {kind: switch}, r: {kind: router}, server: {}}
links:
  - endpoints: [client, home]
  - endpoints: [home, r]
  - endpoints: [office, r]
  - endpoints: [r, server]
events:
  - {at: 9s, interface: "client:eth0", add_address: 10.0.1.9/24}
  - {at: 5s, interface: "client:eth0", move_to: office}
  - {at: 6s, interface: "client:eth0", move_to: office}
  - {at: 1s, interface: "client:eth0", add_address: 10.0.2.9/24}
  - {at: 1s, interface: "client:eth0", add_address: 10.0.1.2/24}
  - {at: 1s, interface: "client:eth0", remove_address: 10.0.1.2}
  - {at: 1s, interface: "server:eth0", move_to: office}
  - {at: 2s, interface: "client:eth0", move_to: offfice}
  - {at: 3s, link: "client:eth0", set: down}
  - {at: 4s, link: "home:eth0", set: down}
  - {at: 1s, link: "r:eth0", set: up}
""",
        [
            (
                "10:53: 10.0.1.9/24 belongs to another network than client:eth0, which is in 10.0.2.0/24,"
                " fd00:0:0:2::/64"
            ),
            "12:49: client:eth0 is in 'office' already",
            (
                "13:53: 10.0.2.9/24 belongs to another network than client:eth0, which is in 10.0.1.0/24,"
                " fd00:0:0:1::/64"
            ),
            "14:53: r:eth0 has 10.0.1.2 already",
            "15:56: client:eth0 does not have 10.0.1.2 (it has 10.0.1.1, fd00:0:0:1::1)",
            "16:49: server:eth0 cannot be moved: its link goes to no switch, but to r:eth2",
            "17:49: no switch is called 'offfice'; did you mean 'office'?",
            "19:38: the link at home:eth0 is down already — since line 18",
            "20:35: the link at r:eth0 is up already",
        ],
    ),
    "path manager": (
        nodes("{mptcp: {path_manager: fullmesh}}"),
        ["4:34: no path manager is called 'fullmesh' — known: kernel, userspace"],
    ),
    "scheduler": (
        nodes("{mptcp: {scheduler: roundrobbin}}"),
        ["4:31: no scheduler is called 'roundrobbin' — did you mean 'roundrobin'?"],
    ),
    "scheduler that the kernel lacks": (
        nodes("{stack: kernel, mptcp: {scheduler: redundant}}"),
        ["4:46: the kernel has no scheduler 'redundant' — only the bundled stack has"],
    ),
    "settings of the bundled stack": (
        nodes(
            "{sysctls: {net.ipv4.tcp_sak: 1, net.mptcp.enabled: x}}", "{stack: kernel, sysctls: {net.x: 1}}"
        ),
        [
            "4:22: the bundled stack has no setting 'net.ipv4.tcp_sak' — did you mean 'net.ipv4.tcp_sack'?",
            "4:62: net.mptcp.enabled: expected a number, got 'x'",
        ],
    ),
    "netem with boxes": (
        link("middlebox: {strip: {}}") + "impairments: netem\n",
        ["8:5: netem is no middlebox — let 'impairments' be 'auto' or 'emulator'"],
    ),
    "elements of lists": (
        TWO_NODES + LINK + "events: [5, []]\n",
        [
            "8:10: an element of 'events' must be a mapping, not 5",
            "8:13: an element of 'events' must be a mapping, not a list",
        ],
    ),
    "numbers out of range": (
        link("impair: {seed: -1, limit: 99999999999999999999, rate: 1mbit, gap: 0, delay: 9999999999999s}"),
        [
            "8:20: must be at least 0, not -1",
            "8:31: must be at most 9223372036854775807, not 99999999999999999999",
            "8:71: must be at least 1, not 0",
            "8:81: a time has at most 12 digits before its point",
        ],
    ),
    "moved to what is no switch": (
        TWO_NODES
        + LINK
        + 'events:\n  - {at: 1s, interface: "client:eth0", move_to: server}\n'
        + '  - {at: 2s, interface: "client:eth0", move_to: lan}\n',
        [
            "9:49: 'server' is a host; there is no switch",
            "10:49: no switch is called 'lan'; there is no switch",
        ],
    ),
    "tabs": (
        "version: 1\nnodes:\n\tclient: {}\n",
        [
            (
                "3:1: not valid YAML: found character that cannot start any token"
                " (while scanning for the next token) — indent with spaces, there are no tabs in YAML"
            )
        ],
    ),
    "sysctls": (
        nodes("{sysctls: {kernel.panic: 1, net.ipv4.ip_forward: true}}"),
        [
            (
                "4:22: 'kernel.panic' cannot be a name here"
                " — a sysctl's name looks like 'net.ipv4.tcp_congestion_control'"
            ),
            "4:60: a sysctl's value is an integer or text; quote it to make it text",
        ],
    ),
    "not text": (TWO_NODES.replace("lab", "12") + LINK, ["2:7: 'name' must be text, not 12"]),
    "duplicate key": (
        TWO_NODES + LINK + "name: other\n",
        ["8:1: duplicate key 'name' — line 2 has it already"],
    ),
    "syntax and nothing else": (
        "version: 1\nname: [\n",
        ["3:1: not valid YAML: did not find expected node content (while parsing a flow node)"],
    ),
}

ADDRESS_CASES = {
    "no prefix": ("10.0.1.1", "'10.0.1.1' needs a prefix length, like '10.0.1.1/24'"),
    "network address": ("10.0.1.0/24", "10.0.1.0/24 is its subnet's own address; the first host is 10.0.1.1"),
    "broadcast address": (
        "10.0.1.255/24",
        "10.0.1.255/24 is its subnet's broadcast address; the last host is 10.0.1.254",
    ),
    "IPv6 network address": ("fd00::/64", "fd00::/64 is its subnet's own address; the first host is fd00::1"),
    "multicast": ("224.0.0.1/24", "224.0.0.1 is a multicast address, not a host's"),
    "IPv6 multicast": ("ff02::1/64", "ff02::1 is a multicast address, not a host's"),
    "loopback": ("127.0.0.1/8", "127.0.0.1 is a loopback address: every host has it already"),
    "unspecified": ("0.0.0.0/24", "0.0.0.0 is the unspecified address, not a host's"),
    "reserved": ("240.0.0.1/24", "240.0.0.1 is reserved, not a host's"),
    "link-local": ("fe80::1/64", "fe80::1 is link-local; interfaces get theirs by themselves"),
    "mapped": ("::ffff:10.0.0.1/120", "an IPv4-mapped address is no IPv6 host's; write 10.0.0.1"),
    "alone": (
        "10.0.1.1/32",
        "10.0.1.1/32 is alone in its subnet; a shorter prefix lets its neighbour be in it too",
    ),
    "everything": ("10.0.1.1/0", "10.0.1.1/0 makes the whole address space one subnet"),
    "out of range": ("10.0.1.256/24", "'10.0.1.256/24' is not an address with its prefix length"),
    "with a zone": ("fd00::1%eth0/64", "'fd00::1%eth0/64' is not an address with its prefix length, like"),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_problem_is_reported_at_its_place(text: str, expected: list[str]) -> None:
    assert problems_of(text) == expected


@pytest.mark.parametrize(("address", "expected"), ADDRESS_CASES.values(), ids=ADDRESS_CASES.keys())
def test_impossible_address(address: str, expected: str) -> None:
    text = TWO_NODES + f'links:\n  - endpoints: [{{node: client, addresses: ["{address}"]}}, server]\n'
    found = problems_of(text)
    assert len(found) == 1
    assert found[0].startswith(f"7:44: {expected}")


def test_everything_is_reported_at_once_and_in_order() -> None:
    text = (
        "version: 2\nname: Lab\nnodes:\n  client: {kind: hots}\n  9: {}\n  server: {}\n"
        "links:\n  - endpoints: [clint, server]\n    mtu: 1\n  - endpoints: [client]\nmore: 1\n"
    )
    found = problems_of(text)
    places = [line.split(" ", 1)[0] for line in found]
    assert places == ["1:10:", "2:7:", "4:18:", "5:3:", "8:17:", "9:10:", "10:16:", "11:1:"]


def test_follow_up_problems_are_not_reported() -> None:
    """A link that cannot be read does not leave its nodes 'isolated'."""
    assert problems_of(TWO_NODES + "links:\n  - endpoints: [client, 'server:']\n") == [
        (
            "7:25: '' cannot be a name here — an interface's name is 1 to 15 letters, digits, '.', '-' or"
            " '_', and begins with a letter"
        )
    ]


def test_many_problems_are_cut_short() -> None:
    keys = "".join(f"x{number}: 1\n" for number in range(500))
    found = problems_of(TWO_NODES + LINK + keys)
    assert len(found) == 101
    assert found[-1] == " … and 400 more problems"


def test_messages_are_one_printable_line_each() -> None:
    found = problems_of(TWO_NODES + LINK + '"a\\nb\\e[31m": 1\n')
    assert found == [
        r"8:1: unknown key 'a\nb\x1b[31m' — known: version, name, nodes, links, impairments, events"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfe", r":1:1: not UTF-8 text"),
        (b"version: 1\nname: \xe9t\xe9\n", r":2:7: not UTF-8 text"),
        (b"a" * (1 << 20) + b"b", r": larger than 1048576 bytes"),
        (b"a: 1\nb: \x00\n", r":2:4: not valid YAML: control characters are not allowed"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(content)
    with pytest.raises(TopologyError, match=expected) as caught:
        load_topology(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="cannot be read: No such file"):
        load_topology(str(tmp_path / "absent.yaml"))
    with pytest.raises(TopologyError, match="not a regular file"):
        load_topology(tmp_path)
    with pytest.raises(TopologyError, match="not a regular file"):
        load_topology("/dev/zero")
    with pytest.raises(TopologyError, match="not a file's name"):
        load_topology("a\0b.yaml")
