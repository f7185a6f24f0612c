"""Which nodes of the graphs run on which provider: what another one than the CPU has no kernels for, runs on the CPU,
and its inputs and outputs are copied there and back."""

import logging
import re
from collections import Counter
from typing import Any

from ..contracts import Contract
from ..errors import logger
from ..session import Session
from .providers import PROVIDERS, parse_provider

_HEAVY = re.compile("MatMul|Gemm|Conv|Attention")  # nearly all of the work
# The precision that providers have kernels for, by measurement or by their documentation; others' exports are not ours.
_BEST = {"cuda": "fp16", "directml": "fp16", "webgpu": "fp16", "openvino": "fp32"}


def tell_split(contract: Contract, provider: str, precision: str) -> dict[str, Any]:
    """Logs it, with a warning where heavy nodes run on the CPU that need not.

    provider: the first one, as it was asked for;  precision: of the model. Returns what a record of a transcription
    should say: "nodes", a number for each provider, and "on_cpu", a number for each operator there; {} for the CPU."""
    name, _, _ = parse_provider(provider)
    if name == "cpu":
        return {}
    facts: dict[str, Any] = {"nodes": {}, "on_cpu": {}}
    for role, session in (("encoder", contract.encoder), ("decoder", contract.decoder)):
        if (name, role) == ("coreml", "decoder"):
            continue  # it was meant for the CPU: see engines.py
        nodes = _operators(session)
        facts["nodes"][role] = {runs: counts.total() for runs, counts in nodes.items()}
        on_cpu = nodes.get("cpu", Counter())
        facts["on_cpu"][role] = dict(on_cpu.most_common())
        for runs, counts in nodes.items():
            logger.debug("%s on %s: %d nodes (%s)", role, runs, counts.total(), _listed(counts, ", "))
        if heavy := Counter({operator: count for operator, count in on_cpu.items() if _HEAVY.search(operator)}):
            n_nodes = sum(facts["nodes"][role].values())
            runs = " and ".join(other for other in nodes if other != "cpu") or name
            advice = _advice(name, precision)
            logger.log(
                logging.WARNING if advice else logging.INFO,
                "%s %s %d of %d %s nodes; %s run on the CPU%s",
                *(
                    runs,
                    "run" if " and " in runs else "runs",
                    n_nodes - on_cpu.total(),
                    n_nodes,
                    role,
                    _listed(heavy, " and "),
                    advice,
                ),
            )
    return facts


def _operators(session: Session) -> dict[str, Counter[str]]:
    """How many nodes of each operator run on each provider, the one with most nodes first."""
    names = {ep: name for name, (ep, _) in PROVIDERS.items()}
    found: dict[str, Counter[str]] = {}
    for part in session._session.get_provider_graph_assignment_info():
        counts = found.setdefault(names.get(part.ep_name, part.ep_name), Counter())
        counts.update(node.op_type for node in part.get_nodes())
    return dict(sorted(found.items(), key=lambda item: -item[1].total()))


def _listed(counts: Counter[str], between: str) -> str:
    return between.join(f"{count} {operator}" for operator, count in counts.most_common())


def _advice(name: str, precision: str) -> str:
    """Nothing where the model has that precision, or 16 bits in another form (q4f16, bf16)."""
    best = _BEST.get(name)
    if best is None or precision == best or (best == "fp16" and "16" in precision):
        return ""
    return f": export with --precision {best}"
