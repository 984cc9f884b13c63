"""What a firewall does with a UDP port and with forwarded packets: `iptables-save` and `nft list ruleset`, read.

Pure text. nft's chains are followed in their order, with jumps; of a rule whose meaning is not known here it is taken
that it may accept: what is told as dropped is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: iptables' own chains, which its nft variant keeps in nft's tables too: they are read from iptables-save.
_IPTABLES = ("INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING")
_DEEPEST = 8
#: What decides nothing in a rule.
_ASIDE = re.compile(r'counter packets \d+ bytes \d+|comment "[^"]*"|log( prefix "[^"]*"| (level|flags|group) \S+)*')


@dataclass
class Chain:
    """A chain of nft: its hook and policy ('' where it is only jumped to) and its rules in their order."""

    table: str
    name: str
    hook: str = ""
    policy: str = "accept"
    rules: list[str] = field(default_factory=list)


def drops_port(iptables: str, nft: str, port: int) -> list[str]:
    """The rules and policies that drop what comes in for a UDP port.

    Args:
        iptables: What `iptables-save` printed, of both its variants.
        nft: What `nft list ruleset` printed; '' where the node has no nft.
        port: The port.

    Returns:
        Each as the tool shows it; none where nothing drops.
    """
    lines = [line.strip() for line in iptables.splitlines()]
    here = [line for line in lines if line.startswith(("-A ", ":")) and " -p udp" in line and _names(line, port)]
    found = [line for line in here if re.search(r"-j (DROP|REJECT)\b", line)]
    accepted = any(line.startswith("-A INPUT") and re.search(r"-j ACCEPT\b", line) for line in lines)
    if not found and ":INPUT DROP" in "\n".join(lines) and not (accepted and here):
        found = [f"the policy of INPUT is DROP, and no rule accepts UDP {port}"]
    return found or list(_blocked(nft, ("prerouting", "input"), f"UDP {port}", lambda rule: _about_port(rule, port)))


def drops_forwarded(iptables: str, nft: str, network: str) -> list[str]:
    """The policies and rules that drop forwarded packets, where nothing accepts those of a network before.

    Args:
        iptables: As above.
        nft: As above.
        network: The network, as `172.30.0.0/16`.
    """
    lines = iptables.splitlines()
    if any(line.startswith(":FORWARD DROP") for line in lines):
        accepts = [
            line
            for line in lines
            if line.startswith("-A FORWARD") and ("FLANNEL-FWD" in line or (network in line and "-j ACCEPT" in line))
        ]
        if not accepts:
            return [f"the policy of FORWARD is DROP, and no rule accepts {network}"]
    return list(_blocked(nft, ("forward",), network, lambda rule: _about_network(rule, network)))


def _names(rule: str, port: int) -> bool:
    """Whether an iptables rule is about this port: by --dport, or one of --dports, ranges too."""
    match = re.search(r"--dports? ([0-9:,]+)", rule)
    for part in match[1].split(",") if match else ():
        low, _, high = part.partition(":")
        if int(low or 0) <= port <= int(high or low or 65535):
            return True
    return False


# ---- nft


def chains(ruleset: str) -> list[Chain]:
    """Read `nft list ruleset`; the chains that iptables keeps there are left out."""
    found: list[Chain] = []
    table, chain = "", None
    for raw in ruleset.splitlines():
        line = re.sub(r"\s+", " ", _ASIDE.sub("", raw)).strip()
        if match := re.match(r"table (\S+ \S+) \{", line):
            table, chain = match[1], None
        elif match := re.match(r"chain (\S+) \{", line):
            chain = Chain(table, match[1])
            if not (table.startswith("ip") and not table.startswith("inet") and match[1] in _IPTABLES):
                found.append(chain)
        elif line == "}":
            chain = None
        elif chain and line.startswith("type "):
            hook, policy = re.search(r"\bhook (\S+)", line), re.search(r"\bpolicy (\w+)", line)
            chain.hook, chain.policy = hook[1] if hook else "", policy[1] if policy else "accept"
        elif chain and line:
            chain.rules.append(line)
    return found


def _blocked(ruleset: str, hooks: tuple[str, ...], what: str, concerns: Callable[[str], bool | None]) -> Iterator[str]:
    """What each base chain drops of it; a packet must pass all of them."""
    known = chains(ruleset)
    for chain in known:
        if chain.hook in hooks and not chain.table.startswith(("ip6 ", "bridge ", "arp ", "netdev ")):
            verdict = _walk(chain, known, concerns, 0)
            if verdict is None and chain.policy == "drop":
                verdict = f"the policy of {chain.table} {chain.name} is drop, and no rule accepts {what}"
            if verdict:
                yield verdict


def _walk(chain: Chain, known: list[Chain], concerns: Callable[[str], bool | None], depth: int) -> str | None:
    """The rule that drops, '' where one accepts or may accept, None where none decides."""
    for rule in chain.rules:
        about = concerns(rule)
        if about is False:
            continue
        if jump := re.search(r"\b(?:jump|goto) (\S+)$", rule):
            target = next((one for one in known if (one.table, one.name) == (chain.table, jump[1])), None)
            verdict = _walk(target, known, concerns, depth + 1) if target and depth < _DEEPEST else None
            if verdict is not None:
                return verdict
        elif re.search(r"\b(drop|reject)\b", rule) and about:
            return f"{chain.table} {chain.name}: {rule}"
        elif re.search(r"\b(accept|queue|vmap)\b", rule):
            return ""
        elif rule == "return":
            return None
    return None


#: A rule without a condition, but for what every packet of the overlay is.
_EVERY = re.compile(r"((meta l4proto|ip protocol) udp )?(drop|reject\b.*|accept|return|(jump|goto) \S+)$")
_NEVER = re.compile(r"\btcp\b(?!.*\budp\b)|\bicmp|\biif(name)? \"?lo\"?( |$)|\bct state (?!.*\b(new|untracked)\b)")


def _about_port(rule: str, port: int) -> bool | None:
    """Whether a rule is about packets of other nodes to a UDP port; None where that can't be told from it."""
    if match := re.search(r"\bdport (!= )?(\{[^}]*\}|\S+)", rule):
        ranges = re.findall(r"(\d+)(?:-(\d+))?", match[2])
        named = any(int(low) <= port <= int(high or low) for low, high in ranges)
        return None if "@" in match[2] else "tcp dport" not in rule and named != bool(match[1])
    return True if _EVERY.match(rule) else False if _NEVER.search(rule) else None


def _about_network(rule: str, network: str) -> bool | None:
    """Whether a rule is about forwarded packets of a network; None where that can't be told from it."""
    if re.search(r"\bct state (?!.*\b(new|untracked)\b)|\bdport\b", rule):
        return False
    return True if network in rule or _EVERY.match(rule) else None
