"""`two-tower component`: one component of a run, for an orchestrator."""

import gc
import time
from typing import Annotated

import typer

from pipeline.cli.console import fail, stderr
from pipeline.cli.options import ConfigOption, SetOption, SpanOption, load_config, span_override

_REFUSED = 3
# Another component of this run may just be giving the lock back.
_LOCK_ATTEMPTS = 30


def component(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `run` shows it.")],
    run_id: Annotated[
        str, typer.Option(metavar="ID", help="The same for all components of a run.")
    ],
    config: ConfigOption,
    set_: SetOption = None,
    span: SpanOption = None,
) -> None:
    """Run one component; an orchestrator calls this for each, in order.

    Exit codes: 0 done, 1 failed, 3 refused by a gate.
    """
    overrides = [*(set_ or ()), *span_override(span)]
    loaded = load_config(config, overrides)

    # See `pipeline_command`: looking for garbage among what stays is wasted time.
    gc.disable()
    from ml_metadata.errors import StatusError

    from components.artifacts import NotBlessedError
    from components.interactions.errors import IngestError
    from pipeline.errors import (
        ComponentFailedError,
        ConfigError,
        MetadataUnreachableError,
        RunInProgressError,
        UnknownComponentError,
    )
    from pipeline.runs.run import run_single_component

    gc.freeze()
    gc.enable()
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            outcome = run_single_component(loaded, name, run_id)
        except RunInProgressError as error:
            if attempt + 1 == _LOCK_ATTEMPTS:
                fail(str(error))
            time.sleep(1)
            continue
        except ComponentFailedError as error:
            refused = isinstance(error.__cause__, NotBlessedError)
            fail(str(error), code=_REFUSED if refused else 1)
        except (
            ConfigError,
            IngestError,
            UnknownComponentError,
            MetadataUnreachableError,
        ) as error:
            fail(str(error))
        except StatusError as error:
            fail(f"ML Metadata cannot be used: {error}")
        except OSError as error:
            fail(f"{loaded.run_dir} cannot be written: {error}")
        stderr().print(f"{name}: {outcome.state} in {outcome.seconds:.1f} s", markup=False)
        return
