"""The text and JSON of a resolved topology."""

from __future__ import annotations

import json
import subprocess
import sys

from testbed.topology import describe, load_topology, to_json
from testbed.topology.load import load_text
from testbed.topology.problems import ProblemCollector

FILE = """
version: 1
name: lab
nodes:
  a: {mptcp: {endpoints: auto, limits: {subflows: 3}}, sysctls: {net.mptcp.checksum_enabled: 1}}
  b: {stack: kernel}
  r: {kind: router}
links:
  - endpoints: [{node: a, mac: "02:00:00:00:00:01"}, r]
    impair: {"<-": {rate: 1500kbit}}
  - {endpoints: [r, b], mtu: 1400, impair: {rate: 2gbit}}
  - endpoints: [{node: a, mac: "02:00:00:00:00:07"}, b]
"""

HOST_A = """
host a, userspace stack
  interface eth0 10.0.1.1/24 fd00:0:0:1::1/64  mac 02:00:00:00:00:01 mtu 1500
  interface eth1 10.0.3.1/24 fd00:0:0:3::1/64  mac 02:00:00:00:00:07 mtu 1500
  route     default via 10.0.1.2 dev eth0 metric 10
  route     default via 10.0.3.2 dev eth1 metric 20
  route     default via fd00:0:0:1::2 dev eth0 metric 10
  route     default via fd00:0:0:3::2 dev eth1 metric 20
  rule      from 10.0.1.1 to 10.0.1.0/24 dev eth0
  rule      from 10.0.1.1 to default via 10.0.1.2 dev eth0
  rule      from 10.0.3.1 to 10.0.3.0/24 dev eth1
  rule      from 10.0.3.1 to default via 10.0.3.2 dev eth1
  rule      from fd00:0:0:1::1 to fd00:0:0:1::/64 dev eth0
  rule      from fd00:0:0:1::1 to default via fd00:0:0:1::2 dev eth0
  rule      from fd00:0:0:3::1 to fd00:0:0:3::/64 dev eth1
  rule      from fd00:0:0:3::1 to default via fd00:0:0:3::2 dev eth1
  limits    subflows 3 add_addr_accepted 0
  endpoint  10.0.3.1 subflow dev eth1
  endpoint  fd00:0:0:3::1 subflow dev eth1
  sysctl    net.mptcp.checksum_enabled = 1
"""

LINKS = """
links
  a:eth0 <-> r:eth0  mtu 1500  <- rate 1500kbit
  r:eth1 <-> b:eth0  mtu 1400  rate 2gbit
  a:eth1 <-> b:eth1  mtu 1500
"""


def test_text() -> None:
    text = describe(load_text(FILE, ProblemCollector("lab")))
    assert text.startswith("topology lab: 3 nodes, 3 links\n")
    assert HOST_A in text
    assert text.endswith(LINKS.rstrip())
    assert str(load_topology("chain").source) in describe(load_topology("chain"))


def test_json_says_the_same() -> None:
    topology = load_text(FILE, ProblemCollector("lab"))
    value = json.loads(to_json(topology))
    assert value["name"] == "lab"
    a = value["nodes"][0]
    assert a["stack"] == "userspace"
    assert a["interfaces"][1] == {
        "name": "eth1",
        "mac": "02:00:00:00:00:07",
        "mtu": 1500,
        "addresses": ["10.0.3.1/24", "fd00:0:0:3::1/64"],
    }
    assert len(a["routes"]) == len(topology.node("a").routes)
    assert a["mptcp"]["endpoints"][0] == {
        "address": "10.0.3.1",
        "flags": ["subflow"],
        "interface": "eth1",
        "identifier": None,
        "port": None,
    }
    assert a["sysctls"] == {"net.mptcp.checksum_enabled": "1"}
    assert value["links"][0]["backward"] == {"rate_bit_s": 1_500_000}


def test_importing_the_package_loads_no_parser() -> None:
    code = (
        "import sys, testbed.topology; "
        "print(sorted({'yaml', 'jinja2', 'pydantic'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
