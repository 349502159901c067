"""Reads forwarded frames with scapy and builds them anew with it.

One JSON object a line on standard input: the frame before, the frame after, and how it was to be sent. What is wrong
goes to standard error, one line each, and makes the exit code 1. At the end the number of frames goes to standard output.
"""

import json
import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw


def link(frame):
    """The Ethernet header with its tags, and the bytes behind it."""
    layers = [Ether(frame)]
    while isinstance(layers[-1].payload, (Dot1Q, Dot1AD)):
        layers.append(layers[-1].payload)
    return layers, bytes(layers[-1].payload)


def ip_length(packet):
    parsed = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    return parsed.len if packet[0] >> 4 == 4 else 40 + parsed.plen


def traffic_class(packet):
    return IP(packet).tos if packet[0] >> 4 == 4 else IPv6(packet).tc


def built_anew(row, sent):
    """What scapy makes of the same intent; lengths and checksums are scapy's own."""
    layers, inner = link(bytes.fromhex(row["frame"]))
    length, cls = ip_length(inner), traffic_class(inner)
    inner, trailer = inner[:length], inner[length:]
    _, sent_packet = link(sent)
    outer_is_v4 = ":" not in row["destination"]
    if outer_is_v4:
        outer = IP(src=row["source"], dst=row["destination"], ttl=64, tos=cls, flags="DF", id=0)
    else:
        outer = IPv6(src=row["source"], dst=row["destination"], hlim=64, tc=cls, fl=IPv6(sent_packet).fl)
    if row["gue_port"]:
        seen = (IP(sent_packet) if outer_is_v4 else IPv6(sent_packet))[UDP]
        # GUE variant 1: the inner packet itself follows. The checksum may be left out.
        packet = outer / UDP(sport=seen.sport, dport=row["gue_port"], chksum=0) / Raw(inner)
    else:
        protocol = 4 if inner[0] >> 4 == 4 else 41
        setattr(outer, "proto" if outer_is_v4 else "nh", protocol)
        packet = outer / Raw(inner)
    ether_type = 0x0800 if outer_is_v4 else 0x86DD
    tags = [tag.__class__(vlan=tag.vlan, prio=tag.prio, id=tag.id, type=tag.type) for tag in layers[1:]]
    ether = Ether(dst=row["next_hop"], src=row["own"], type=layers[0].type if tags else ether_type)
    if tags:
        tags[-1].type = ether_type
    result = ether
    for tag in tags:
        result = result / tag
    return bytes(result) + bytes(packet) + trailer


def checked(packet):
    """Complaints about a packet that scapy finds in its own reading: header checksum, and lengths."""
    if packet[0] >> 4 == 4:
        parsed = IP(packet)
        again = IP(bytes(packet[:20]))
        del again.chksum
        if IP(bytes(again)).chksum != parsed.chksum:
            yield "the outer IPv4 header's checksum is wrong"


def main():
    frames = wrong = 0
    for line in sys.stdin:
        row = json.loads(line)
        sent = bytes.fromhex(row["sent"])
        expected = built_anew(row, sent)
        complaints = list(checked(link(sent)[1]))
        if sent != expected:
            complaints.append(f"scapy builds\n  {expected.hex()}\ninstead of\n  {sent.hex()}")
        for complaint in complaints:
            print(f"{row['name']}: {complaint}", file=sys.stderr)
        frames += 1
        wrong += bool(complaints)
    print(frames)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
