"""`prepare-dataset` and `compute-class-weights` as flow runs of Prefect."""

from __future__ import annotations

from prefect import flow

from flows.dataset.class_weights import ClassWeights, count_class_weights
from flows.dataset.request import PrepareRequest, WeightsRequest
from flows.dataset.run import DatasetSummary, run_preparation
from flows.run.prefect_observer import observed_flow


@flow(name="prepare-dataset", flow_run_name="{request.output.name}", persist_result=False)
@observed_flow
def prepare_dataset(request: PrepareRequest) -> DatasetSummary:
    """Labelled imagery in; one dataset store, with a report of what is in it, out.

    Run it again with the same request after any interruption: finished shards are not cut again.
    """
    return run_preparation(request)


@flow(name="compute-class-weights", flow_run_name="{request.dataset.name}", persist_result=False)
@observed_flow
def compute_class_weights(request: WeightsRequest) -> ClassWeights:
    """P_U and P_C over the training split, w1 = 1/P_U and w2 = 1/P_C, kept in the dataset's attributes.

    Raises:
        TrainingError: the training split has one class alone: a weight would be infinite.
    """
    return count_class_weights(request)
