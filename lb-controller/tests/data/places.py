"""Makes the databases beside this file: places of documentation addresses (RFC 5737, RFC 3849).

pip install mmdb_writer netaddr; python3 places.py
"""

from netaddr import IPSet
from mmdb_writer import MMDBWriter


def city(country, latitude, longitude):
    return {
        "country": {"iso_code": country},
        "location": {"latitude": latitude, "longitude": longitude, "accuracy_radius": 20},
    }


BERLIN, SYDNEY = city("DE", 52.52, 13.4), city("AU", -33.87, 151.21)


def write(name, kind, rows):
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind, float_type="f64", int_type="u32")
    for network, record in rows:
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(name)


write("places.mmdb", "GeoLite2-City", [("192.0.2.0/24", BERLIN), ("198.51.100.0/24", SYDNEY), ("2001:db8::/33", BERLIN)])
write("moved.mmdb", "GeoLite2-City", [("192.0.2.0/24", SYDNEY), ("198.51.100.0/24", BERLIN)])
write("networks.mmdb", "GeoLite2-ASN", [("192.0.2.0/24", {"autonomous_system_number": 64496})])
