"""From a document to what a pool should hold, and from there to the changes: what, in which order, why, at what cost."""

from vnet.plan.desired import desired_state
from vnet.plan.disruption import Disruption
from vnet.plan.export import NothingToExport, export_document
from vnet.plan.pool import Action, Change, FieldChange, Kind, PoolPlan, plan_pool
from vnet.plan.render import change_dict, plan_dict, render_plan

__all__ = [
    "Action",
    "Change",
    "Disruption",
    "FieldChange",
    "Kind",
    "NothingToExport",
    "PoolPlan",
    "change_dict",
    "desired_state",
    "export_document",
    "plan_dict",
    "plan_pool",
    "render_plan",
]
