"""The configuration: a TOML file with bindings, cards and the server, checked as a whole, secrets only by reference.

The library that checks is imported when a file is read, not with this package.
"""

from demail_hw.config.loading import (
    LoadedConfiguration,
    configuration_schema,
    load_configuration,
    parse_configuration,
    problems_in,
    read_configuration,
)
from demail_hw.config.place import find_configuration, search_path
from demail_hw.config.schema import (
    BindingConfig,
    BindingMode,
    CardConfig,
    Configuration,
    ExportConfig,
    ServerConfig,
    ServerTlsConfig,
    TlsConfig,
)

__all__ = [
    "BindingConfig",
    "BindingMode",
    "CardConfig",
    "Configuration",
    "ExportConfig",
    "LoadedConfiguration",
    "ServerConfig",
    "ServerTlsConfig",
    "TlsConfig",
    "configuration_schema",
    "find_configuration",
    "load_configuration",
    "parse_configuration",
    "problems_in",
    "read_configuration",
    "search_path",
]
