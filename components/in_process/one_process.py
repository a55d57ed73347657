"""Whether Beam would do the work in this process alone, where it then only costs."""

from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions


def has_one_process(beam_pipeline_args: Sequence[str]) -> bool:
    """Whether Beam with these arguments has no process but this one."""
    options = PipelineOptions(list(beam_pipeline_args))
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    return runner == "DirectRunner" and options.view_as(DirectOptions).direct_num_workers == 1
