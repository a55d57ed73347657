"""Finds the model that a new one is held against."""

import ml_metadata as mlmd
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.common import resolver

CURRENT_KEY = "current"
MODEL_KEY = "model"
BLESSING_KEY = "model_blessing"


class LastBlessedStrategy(resolver.ResolverStrategy):
    """Resolves the newest blessed model that is not the current one.

    Unlike TFX's `LatestBlessedModelStrategy`, which finds the current model itself once it is
    blessed: a second run would then hold the model against itself, and take nothing of what comes
    after from the cache.

    ```python
    resolver = Resolver(
        strategy_class=LastBlessedStrategy,
        current=trainer.outputs["model"],
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    )
    ```
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the model and its blessing, or empty lists where there is none."""
        current = {model.id for model in input_dict[CURRENT_KEY]}
        blessings = {
            blessing.get_int_custom_property(
                constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
            ): blessing
            for blessing in input_dict[BLESSING_KEY]
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1
        }
        found = {MODEL_KEY: [], BLESSING_KEY: [], CURRENT_KEY: input_dict[CURRENT_KEY]}
        for model in sorted(input_dict[MODEL_KEY], key=lambda model: -model.id):
            if model.id in blessings and model.id not in current:
                found[MODEL_KEY], found[BLESSING_KEY] = [model], [blessings[model.id]]
                break
        return found
