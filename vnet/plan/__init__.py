"""From a document to what a pool should hold, and from there to the changes: what, in which order, why, at what cost."""

from vnet.objects.impact import Disruption
from vnet.plan.export import NothingToExport, document_of, export_document
from vnet.plan.pool import FieldChange, ObjectChange, PlanAction, PoolPlan, plan_pool, plan_proposal
from vnet.plan.render import change_dict, plan_dict, render_plan
from vnet.topology import desired_state

__all__ = [
    "Disruption",
    "FieldChange",
    "NothingToExport",
    "ObjectChange",
    "PlanAction",
    "PoolPlan",
    "change_dict",
    "desired_state",
    "document_of",
    "export_document",
    "plan_dict",
    "plan_pool",
    "plan_proposal",
    "render_plan",
]
