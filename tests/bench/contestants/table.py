"""All contestants by name, in the order of the report. The first is the base of the ratios."""

from . import bore, cok, haproxy, nginx, rathole

COMPARED = {
    "cok over ws": cok.over("ws"),
    "cok over quic": cok.over("quic"),
    "nginx two hops": nginx.two_hops,
    "haproxy two hops": haproxy.two_hops,
    "nginx + rathole": rathole.with_tls,
    "nginx + bore": bore.without_tls,
}

# Not in Debian, and not on crates.io.
LEFT_OUT = {
    name: "it needs Go's module proxy, which is not among the sources of this benchmark" for name in ("frp", "chisel", "piko")
}


def choose(parts, against):
    """Returns the contestants whose names contain one of `parts`, or all. `against` is a folder with another build of cok."""
    known = dict(COMPARED)
    if against:
        for transport in ("ws", "quic"):
            known[f"cok of {against.name} over {transport}"] = cok.over(transport, against.resolve())
    return {name: begin for name, begin in known.items() if not parts or any(part in name for part in parts)}
