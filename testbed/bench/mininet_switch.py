"""The same lab as ``hosts_on_a_switch``, by Mininet: prints ``{"up_s": …, "down_s": …}``.

Run as a script, by a Python that can import Mininet, in a network namespace of its own. The switch is a
Linux bridge, so that neither Open vSwitch nor bridge-utils are needed.
"""

from __future__ import annotations

import json
import sys
import time

from mininet.net import Mininet


def measure(hosts: int) -> dict[str, float]:
    """Start and stop a network of ``hosts`` hosts; seconds."""
    started = time.perf_counter()
    network = Mininet(controller=None, waitConnected=False)
    switch = network.addHost("s1", ip=None)
    switch.cmd("ip link add br0 type bridge; ip link set br0 up")
    for number in range(1, hosts + 1):
        address = f"10.0.{number >> 8}.{number & 0xFF}/16"
        link = network.addLink(network.addHost(f"h{number}", ip=address), switch)
        switch.cmd("ip link set", link.intf2.name, "master br0")
    network.start()
    is_up = time.perf_counter()
    network.stop()
    return {"up_s": is_up - started, "down_s": time.perf_counter() - is_up}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
