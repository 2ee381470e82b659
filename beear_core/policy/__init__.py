"""The written policy of a release, and the decision by it.

A policy is a YAML file: a list of checks, each a limit on one metric with the reason for it. ``GatePolicy`` is what it
says, ``feasibility_faults`` tells what cannot pass or cannot fail, ``decide`` decides on ``Evidence``. No torch here.
"""

from beear_core.policy.agreement import champion_faults, measured_otherwise
from beear_core.policy.checks import is_skipped
from beear_core.policy.decision import decide, explain, redecide
from beear_core.policy.feasibility import feasibility_faults
from beear_core.policy.figures import sizes
from beear_core.policy.schema import SHIPPED, Check, GatePolicy, find_policy, shipped_policies
from beear_core.policy.waivers import Weighed, cleared, read_waivers, weigh

__all__ = [
    "SHIPPED",
    "Check",
    "GatePolicy",
    "Weighed",
    "champion_faults",
    "cleared",
    "decide",
    "explain",
    "feasibility_faults",
    "find_policy",
    "is_skipped",
    "measured_otherwise",
    "read_waivers",
    "redecide",
    "shipped_policies",
    "sizes",
    "weigh",
]
