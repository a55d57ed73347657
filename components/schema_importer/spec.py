"""Keys and specification of SchemaImporter."""

from tfx.types import component_spec, standard_artifacts, standard_component_specs

SCHEMA_FILE_KEY = standard_component_specs.SCHEMA_FILE_KEY
SCHEMA_KEY = standard_component_specs.SCHEMA_KEY
SCHEMA_HASH_KEY = "schema_hash"


class SchemaImporterSpec(component_spec.ComponentSpec):
    """What SchemaImporter takes and gives."""

    PARAMETERS = {
        SCHEMA_FILE_KEY: component_spec.ExecutionParameter(type=str),
        SCHEMA_HASH_KEY: component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict[str, component_spec.ChannelParameter] = {}
    OUTPUTS = {SCHEMA_KEY: component_spec.ChannelParameter(type=standard_artifacts.Schema)}
