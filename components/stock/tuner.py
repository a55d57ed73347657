"""TFX's Tuner with a report of every trial, including those that failed."""

import json
import os
from typing import Any

from tfx.components.tuner import executor
from tfx.types import artifact_utils, standard_component_specs

from components import files
from components.artifacts import TRIALS_FILE, Artifacts


class Executor(executor.Executor):
    """Run Tuner, without its summaries on standard output."""

    def Do(  # noqa: N802
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Search, and write the best values and a report of all trials.

        The tuner of `tuner_fn` must have a method `outcomes`, which returns the trials.
        """
        tuner = executor.search(
            input_dict, exec_properties, self._get_tmp_dir(), print_tuning_summary=False
        )
        executor.write_best_hyperparameters(tuner, output_dict)
        folder = artifact_utils.get_single_uri(
            output_dict[standard_component_specs.TUNER_RESULTS_KEY]
        )
        report = {"metric": tuner.oracle.objective.name, "trials": tuner.outcomes()}
        files.write_text(os.path.join(folder, TRIALS_FILE), json.dumps(report, indent=2))
