"""The report of a release: one HTML page that loads nothing, made from the records alone."""

from beear_core.evaluation.samples import redact, split_reply
from beear_core.report.page import render
from beear_core.report.pairs import SamplePair, choose_pairs, read_pairs
from beear_core.report.settled import verdict_of
from beear_core.report.status import render_status

__all__ = ["SamplePair", "choose_pairs", "read_pairs", "redact", "render", "render_status", "split_reply", "verdict_of"]
