"""`two-tower component`: run one component; an orchestrator calls it for each component."""

import gc
import time
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import ConfigOption, SetOption, SpanOption, load_config, span_override
from pipeline.cli.output import fail, note
from pipeline.cli.run import REFUSED

# Attempts to get the run lock, one per second: the previous component may still hold it.
_LOCK_ATTEMPTS = 30


@command
def component(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the component, as `run` shows it.")
    ],
    run_id: Annotated[
        str, typer.Option(metavar="ID", help="The same for all components of a run.")
    ],
    config: ConfigOption,
    set_: SetOption = None,
    span: SpanOption = None,
) -> None:
    """Run one component. An orchestrator calls this for each component, in order.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by a gate.

    Example: two-tower component Trainer --run-id 20261130 -c clicks
    """
    loaded = load_config(config, [*(set_ or ()), *span_override(span)])
    # Exclude imported objects from garbage collection: they live as long as the process.
    gc.disable()
    from components.errors import NotBlessedError
    from pipeline.errors import ComponentFailedError, RunInProgressError
    from pipeline.runs.run import run_single_component

    gc.freeze()
    gc.enable()
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            outcome = run_single_component(loaded, name, run_id)
        except RunInProgressError:
            if attempt + 1 == _LOCK_ATTEMPTS:
                raise
            time.sleep(1)
            continue
        except ComponentFailedError as error:
            refused = isinstance(error.__cause__, NotBlessedError)
            fail(str(error), code=REFUSED if refused else 1)
        note(f"{name}: {outcome.state} in {outcome.seconds:.1f} s")
        return
